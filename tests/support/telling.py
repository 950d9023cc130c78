"""A program for `python -c`: a kdedge command that ends by telling on stderr, as a JSON line, what it has imported."""

RUN_AND_TELL = """
import json, sys
from kdedge.cli import main
try:
    main()
finally:
    sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
