"""Time by layer on a target, with the ONNX nodes that each layer came from."""

from kdedge.core.console import progress_bar
from kdedge.core.deployment import Profile
from kdedge.core.profiling import LayerCost, LayersReport
from kdedge.core.rundir import sha256_file
from kdedge.profile.layer_nodes import nodes_of_layers
from kdedge.profile.measure import Model, request_for, said
from kdedge.profile.targets import Target


def profile_layers(model: Model, spec: Profile, target: Target) -> LayersReport:
    """Measure an engine or ONNX file in one fresh process.

    Raises:
        KdedgeError: the backend does not time layers.
        ModelError: the model cannot be opened.
    """
    with progress_bar(f"layers {model.name}", 1) as bar:
        reply = target.run(request_for("layers", model.path, model.backend, spec, model.shapes, model.options))
        bar.advance()
    found = reply["layers"]
    if model.onnx and not any(layer["nodes"] for layer in found):
        names = nodes_of_layers([layer["name"] for layer in found], model.onnx)
        found = [{**layer, "nodes": nodes} for layer, nodes in zip(found, names, strict=True)]
    total = sum(layer["median_ms"] for layer in found) or 1.0
    report = LayersReport(
        name=model.name,
        model=model.path.name,
        model_sha256=sha256_file(model.path),
        backend=model.backend,
        provider=reply["provider"],
        batch=next((int(shape[0]) for shape in reply["shapes"].values() if shape), 1),
        threads=reply["options"].get("threads", 1),
        queries=reply["queries"],
        query_ms=reply["query_ms"],
        plain_ms=reply["plain_ms"],
        layers=[LayerCost(**layer, share=layer["median_ms"] / total) for layer in found],
        device=reply["device"],
    )
    report.notes = [*notes(report), *said([reply])]
    return report


def notes(report: LayersReport) -> list[str]:
    whole = f"layers add up to {report.total_ms:.3f} ms of a query of {report.query_ms:.3f} ms"
    found = [f"{whole}, which takes {report.plain_ms:.3f} ms when they are not timed"]
    if report.backend == "ort":
        found.append("ONNX Runtime counts whole microseconds for each layer")
    if unknown := sum(not layer.nodes for layer in report.layers):
        found.append(f"{unknown} of {len(report.layers)} layers have names that tell of no ONNX node")
    return found
