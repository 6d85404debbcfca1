// Names, types and shapes of an .onnx file (onnx.proto), by skipping over everything else: weights are not read.

const TYPES = { 1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "text", 9: "bool", 10: "float16", 11: "float64",
  12: "uint32", 13: "uint64", 16: "bfloat16" };
const WINDOW = 2 ** 18;
const MOST_FIELDS = 200_000;
const MODEL = { graph: 7, opsets: 8 };
const GRAPH = { node: 1, initializer: 5, input: 11, output: 12 };
const NODE_OP = 4;

/** Return {inputs, outputs, nodes, ops, weight_bytes, opset}. */
export async function readOnnx(file) {
  const found = { inputs: [], outputs: [], nodes: 0, ops: {}, weight_bytes: 0, opset: 0 };
  const source = windowed(file);
  const weights = new Set();
  for await (const top of fields(source, 0, file.size)) {
    if (top.number === MODEL.opsets) {
      const set = Object.fromEntries(messages(await source(top.start, top.end)).map((item) => [item.number, item]));
      if (!set[1]?.bytes?.length) found.opset = set[2]?.value ?? found.opset;
    }
    if (top.number !== MODEL.graph) continue;
    for await (const field of fields(source, top.start, top.end)) {
      if (field.number === GRAPH.node) {
        const op = messages(await source(field.start, field.end)).find((item) => item.number === NODE_OP);
        const name = op?.bytes ? textOf(op.bytes) : "?";
        found.nodes += 1;
        found.ops[name] = (found.ops[name] ?? 0) + 1;
      } else if (field.number === GRAPH.initializer) {
        found.weight_bytes += field.end - field.start;
        for await (const item of fields(source, field.start, field.end)) {
          if (item.number === 8) weights.add(textOf(await source(item.start, item.end)));
        }
      } else if (field.number === GRAPH.input) found.inputs.push(valueInfo(await source(field.start, field.end)));
      else if (field.number === GRAPH.output) found.outputs.push(valueInfo(await source(field.start, field.end)));
    }
  }
  found.inputs = found.inputs.filter(({ name }) => !weights.has(name));
  return found;
}

function valueInfo(bytes) {
  const items = messages(bytes);
  const inner = (number, list) => messages(list.find((item) => item.number === number)?.bytes ?? new Uint8Array());
  const tensor = inner(1, inner(2, items));
  const shape = inner(2, tensor).filter((item) => item.number === 1).map((item) => {
    const size = messages(item.bytes);
    const known = size.find((part) => part.number === 1), called = size.find((part) => part.number === 2);
    return known ? known.value : called ? textOf(called.bytes) : "?";
  });
  return { name: textOf(items.find((item) => item.number === 1)?.bytes ?? new Uint8Array()), shape,
    type: TYPES[tensor.find((item) => item.number === 1)?.value] ?? "unknown" };
}

const textOf = (bytes) => new TextDecoder().decode(bytes);

// Reads parts of a file, a window at a time, since most fields are small and near each other.
function windowed(file) {
  let from = 0, held = new Uint8Array();
  return async (start, end) => {
    if (start < from || end > from + held.length) {
      from = start;
      held = new Uint8Array(await file.slice(start, Math.max(end, start + WINDOW)).arrayBuffer());
    }
    return held.subarray(start - from, end - from);
  };
}

async function* fields(source, start, end) {
  for (let count = 0; start < end; count++) {
    if (count > MOST_FIELDS) throw new Error("too many fields");
    const head = await source(start, Math.min(start + 20, end));
    const field = fieldAt(head, 0);
    yield { number: field.number, start: start + field.start, end: start + field.end };
    start += field.end;
    if (start > end) throw new Error("a field past its end");
  }
}

function messages(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const field = fieldAt(bytes, at);
    if (field.end > bytes.length) throw new Error("a field past its end");
    found.push({ number: field.number, value: field.value, bytes: bytes.subarray(field.start, field.end) });
    at = field.end;
  }
  return found;
}

function fieldAt(bytes, at) {
  const [tag, start] = varint(bytes, at);
  const number = Math.floor(tag / 8);
  switch (tag % 8) {
    case 0: {
      const [value, end] = varint(bytes, start);
      return { number, value, start, end };
    }
    case 1: return { number, start, end: start + 8 };
    case 2: {
      const [length, inside] = varint(bytes, start);
      return { number, start: inside, end: inside + length };
    }
    case 5: return { number, start, end: start + 4 };
    default: throw new Error("not a field");
  }
}

function varint(bytes, at) {
  let value = 0, factor = 1;
  for (let byte = 128; byte >= 128; factor *= 128) {
    if (at >= bytes.length || factor > 2 ** 63) throw new Error("not a number");
    byte = bytes[at++];
    value += (byte % 128) * factor;
  }
  return [value, at];
}
