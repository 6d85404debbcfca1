// Hashes a file beside the page, so that the page stays quick: takes a Blob, answers {done} in bytes and at the end {digest}.
import { Sha256 } from "/web/sha256.js";

const PIECE = 4 * 2 ** 20;

onmessage = async ({ data: file }) => {
  try {
    const sha = new Sha256();
    for (let at = 0; at < file.size; at += PIECE) {
      sha.update(new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer()));
      postMessage({ done: Math.min(at + PIECE, file.size) });
    }
    postMessage({ digest: sha.digest() });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
