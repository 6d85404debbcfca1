// The names of the files that this browser sent, by job: the server knows files by their content only.

import { shortId } from "/web/words.js";

const NAMES = "onnx-trt-optimizer-names";
const MOST = 200;

const read = () => {
  try {
    return JSON.parse(localStorage.getItem(NAMES)) ?? [];
  } catch {
    return [];
  }
};

/** Remember what the model of a job was called here. */
export function rememberName(id, name) {
  localStorage.setItem(NAMES, JSON.stringify([[id, name], ...read()].slice(0, MOST)));
}

/** Return the name of a job's model where this browser sent it, or null. */
export const knownName = (id) => read().find(([known]) => known === id)?.[1] ?? null;

/** Return what to call a job: its model's name, where this browser sent it, else the beginning of its id. */
export const nameOf = (id) => knownName(id) ?? `Job ${shortId(id)}`;

/** Return what to call a job among others, of which several may be of one model. */
export const titleOf = (id) => (knownName(id) === null ? nameOf(id) : `${knownName(id)} (${shortId(id)})`);
