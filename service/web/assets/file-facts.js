// What a chosen file is, read in the browser before it is sent: arrays of an .npz, inputs and layers of an .onnx. A help, never a check:
// the server reads every file itself.
import { bytes } from "/web/words.js";
import { readOnnx } from "/web/onnx-facts.js";
import { directoryOf, readArrays } from "/web/npz-facts.js";

const PICTURES = /\.(jpe?g|png|webp|bmp)$/i;

/** Return {lines, kind}: sentences about a file, and "model", "arrays", "pictures" or "other". */
export async function factsOf(file, role) {
  try {
    return await read(file, role);
  } catch {
    return { kind: "other", lines: ["The browser cannot look inside; the server will."] };
  }
}

async function read(file, role) {
  const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (text.startsWith("PK")) return zipFacts(file, role);
  if (text.startsWith("\x93NUMPY")) return { kind: "arrays", lines: ["One array (.npy)."] };
  if (role === "model" || role === "metric") return modelFacts(file);
  if (/\.onnx$/i.test(file.name)) return { kind: "other", lines: ["This looks like a model, not like samples."] };
  return { kind: "other", lines: [] };
}

async function zipFacts(file, role) {
  const entries = await directoryOf(file);
  const arrays = entries.filter((entry) => entry.name.endsWith(".npy"));
  if (arrays.length && arrays.length === entries.length) {
    const read = await readArrays(file, arrays);
    const lines = read.map(({ name, shape, type }) => `Array "${name}": (${shape.join(", ")}), ${type}`);
    const counts = new Set(read.filter(({ shape }) => shape.length).map(({ shape }) => shape[0]));
    if (counts.size === 1) lines.push(`${[...counts][0].toLocaleString("en")} samples, if the first axis counts them.`);
    if (role === "model") lines.push("This looks like arrays, not like a model.");
    return { kind: "arrays", lines };
  }
  const pictures = entries.filter((entry) => PICTURES.test(entry.name));
  if (pictures.length) {
    const folders = new Set(pictures.map((entry) => entry.name.split("/").slice(0, -1).join("/")));
    return { kind: "pictures", lines: [`${pictures.length.toLocaleString("en")} pictures in ${folders.size} folders.`] };
  }
  return { kind: "other", lines: [`An archive of ${entries.length} files.`] };
}

async function modelFacts(file) {
  const model = await readOnnx(file);
  if (!model.nodes) return { kind: "other", lines: ["This does not look like an .onnx file."] };
  const one = ({ name, shape, type }) => `${name} (${shape.join(", ")}), ${type}`;
  const ops = Object.entries(model.ops).sort((a, b) => b[1] - a[1]).slice(0, 5).map(([op, count]) => `${count} ${op}`);
  return {
    kind: "model",
    inputs: model.inputs,
    lines: [
      ...model.inputs.map((input) => `Input ${one(input)}`),
      ...model.outputs.map((output) => `Output ${one(output)}`),
      `${model.nodes.toLocaleString("en")} operators: ${ops.join(", ")}${Object.keys(model.ops).length > 5 ? ", ..." : ""}`,
      `Weights: ${bytes(model.weight_bytes)} in this file${model.opset ? `; opset ${model.opset}` : ""}`,
    ],
  };
}
