"""Running bfloat16 graphs where ONNX Runtime has no kernels for them: as it runs float16 itself, through float32."""

from onnx import ModelProto, NodeProto, TensorProto, helper


def widen_bfloat16(model: ModelProto) -> None:
    """Change a graph in place: every node on bfloat16 computes in float32, and its results are rounded to bfloat16.

    Initializers stay bfloat16 and are widened where they are read, so each value is what a kernel that accumulates in
    float32 gives.
    """
    graph = model.graph
    low = {i.name for i in graph.initializer if i.data_type == TensorProto.BFLOAT16}
    widened: set[str] = set()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Cast":
            if _target(node) == TensorProto.BFLOAT16:
                low.update(node.output)
            graph.node.append(node)
            continue
        touched = [name for name in node.input if name in low]
        for name in dict.fromkeys(touched):
            if name not in widened:
                widened.add(name)
                graph.node.append(helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT))
        renamed = [f"{name}.wide" if name in low else name for name in node.input]
        del node.input[:]
        node.input.extend(renamed)
        results = list(node.output)
        if touched:
            low.update(results)
            del node.output[:]
            node.output.extend(f"{name}.exact" for name in results)
        graph.node.append(node)
        if touched:
            graph.node.extend(
                helper.make_node("Cast", [f"{name}.exact"], [name], to=TensorProto.BFLOAT16) for name in results
            )


def _target(node: NodeProto) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == "to")
