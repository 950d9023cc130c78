"""What everything that is written as JSON is: without unknown keys."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Of a record, which has the schema's version."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Record(Part):
    """What has a file of its own."""

    schema_version: int = 1
