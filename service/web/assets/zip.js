// A .zip of files as they are (stored, not compressed), for folders of pictures and models with external data. It holds no bytes in memory.
import { Problem } from "/web/http.js";

const TABLE = new Uint32Array(256).map((_, index) => {
  for (let bit = 0; bit < 8; bit++) index = index & 1 ? (index >>> 1) ^ 0xedb88320 : index >>> 1;
  return index;
});
const PIECE = 4 * 2 ** 20;
const MOST_BYTES = 2 ** 32 - 1;
const MOST_FILES = 2 ** 16 - 2;
const DAY = 33; // 1 January 1980, so that the same files give the same .zip

/** Return a Blob. `entries` are {path, file}; `onShare` is told how much is read. */
export async function zipOf(entries, onShare) {
  const total = entries.reduce((sum, { file }) => sum + file.size, 0);
  if (total > MOST_BYTES || entries.length > MOST_FILES) {
    throw new Problem({ title: "Too much for the browser to pack", detail: `${entries.length} files of ${total} bytes`,
      fix: "Pack them into one .zip or .tar yourself and choose that." });
  }
  const body = [], directory = [];
  let at = 0, done = 0;
  for (const { path, file } of [...entries].sort((a, b) => (a.path < b.path ? -1 : 1))) {
    const name = new TextEncoder().encode(path);
    const crc = await crcOf(file, (count) => onShare(total ? (done += count) / total : 1));
    const facts = [[2, 0x0800], [2, 0], [2, 0], [2, DAY], [4, crc], [4, file.size], [4, file.size], [2, name.length], [2, 0]];
    body.push(packed([[4, 0x04034b50], [2, 20], ...facts]), name, file);
    directory.push(packed([[4, 0x02014b50], [2, 20], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), name);
    at += 30 + name.length + file.size;
  }
  const size = directory.reduce((sum, piece) => sum + piece.length, 0);
  const end = packed([[4, 0x06054b50], [2, 0], [2, 0], [2, entries.length], [2, entries.length], [4, size], [4, at], [2, 0]]);
  return new Blob([...body, ...directory, end], { type: "application/zip" });
}

async function crcOf(file, onCount) {
  let crc = ~0;
  for (let at = 0; at < file.size; at += PIECE) {
    const bytes = new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer());
    for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
    onCount(bytes.length);
  }
  return ~crc >>> 0;
}

function packed(fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return bytes;
}
