// Names, types and shapes of the arrays in an .npz (PKWARE's APPNOTE; numpy.lib.format), from the heads of its members only.

const END = 0x06054b50;
const TAIL = 66_000;
const MOST_ENTRIES = 20_000;
const HEAD = 1024;
const LETTERS = { f: "float", i: "int", u: "uint", b: "bool" };

/** Return the entries of a .zip: {name, method, offset, size}. */
export async function directoryOf(file) {
  const from = Math.max(0, file.size - TAIL);
  const tail = new DataView(await file.slice(from).arrayBuffer());
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at--;
  if (at < 0) throw new Error("no directory");
  const [size, offset] = [tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  const view = new DataView(await file.slice(offset, offset + size).arrayBuffer());
  const entries = [];
  for (let here = 0; here + 46 <= view.byteLength && entries.length < MOST_ENTRIES; ) {
    const length = view.getUint16(here + 28, true);
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, here + 46, length));
    if (!name.endsWith("/")) {
      entries.push({ name, method: view.getUint16(here + 10, true), size: view.getUint32(here + 20, true), offset: view.getUint32(here + 42, true) });
    }
    here += 46 + length + view.getUint16(here + 30, true) + view.getUint16(here + 32, true);
  }
  return entries;
}

/** Return {name, shape, type} of the arrays of these entries. */
export async function readArrays(file, entries) {
  return Promise.all(entries.slice(0, 20).map(async (entry) => {
    const local = new DataView(await file.slice(entry.offset, entry.offset + 30).arrayBuffer());
    const start = entry.offset + 30 + local.getUint16(26, true) + local.getUint16(28, true);
    const head = await firstBytes(file.slice(start, start + Math.min(entry.size, 16 * HEAD)), entry.method);
    return { name: entry.name.replace(/\.npy$/, ""), ...arrayHead(head) };
  }));
}

async function firstBytes(blob, method) {
  if (method === 0) return new Uint8Array(await blob.slice(0, HEAD).arrayBuffer());
  if (method !== 8) throw new Error("another compression");
  const reader = blob.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const { value } = await reader.read();
  reader.cancel().catch(() => {}); // what follows was cut off on purpose
  return value ?? new Uint8Array();
}

function arrayHead(head) {
  const text = String.fromCharCode(...head.subarray(0, HEAD));
  const type = /'descr': '[<>|=]?([a-z])(\d+)'/.exec(text);
  const shape = /'shape': \(([^)]*)\)/.exec(text);
  if (!text.startsWith("\x93NUMPY") || !type || !shape) throw new Error("no array");
  const letter = LETTERS[type[1]];
  return {
    type: letter === "bool" ? "bool" : letter ? `${letter}${8 * Number(type[2])}` : "text or objects",
    shape: shape[1].split(",").map((part) => part.trim()).filter(Boolean).map(Number),
  };
}
