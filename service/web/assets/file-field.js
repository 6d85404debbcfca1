// A field for one upload: drop or choose a file, several files or a folder; it is hashed and sent at once.
import { fill, h, problemBox, say } from "/web/dom.js";
import { factsOf } from "/web/file-facts.js";
import { Problem } from "/web/http.js";
import { upload } from "/web/upload.js";
import { bytes } from "/web/words.js";
import { zipOf } from "/web/zip.js";

const HIDDEN = /(^|\/)(\.|__MACOSX)/; // what systems leave in folders

/** Return {element, role, ready()}: ready() gives the id once the file is with the server, or null where none was chosen. */
export function fileField({ role, title, hint, required, folder, accept, onFacts = () => {}, onStored = () => {} }) {
  const id = `file-${role}`;
  const picked = h("p", { class: "picked", id: `${id}-picked` });
  const facts = h("ul", { class: "facts" });
  const bar = h("progress", { max: 1, value: 0, class: "hidden", "aria-label": `${title}: upload` });
  const status = h("p", { class: "status" });
  const problem = h("div");
  let current = null, chosen = 0;

  const input = h("input", { type: "file", id, class: "unseen", "aria-label": `${title}: choose files`, multiple: true, accept, required, "aria-describedby": `${id}-hint ${id}-picked`, onchange: () => take(plain(input.files)) });
  const folderInput = folder && h("input", { type: "file", id: `${id}-folder`, class: "unseen", "aria-label": `${title}: choose a folder`, webkitdirectory: true, onchange: () => take(plain(folderInput.files)) });
  const element = h("div", { class: "drop", "data-role": role },
    h("h2", {}, title, required ? h("span", { class: "must" }, " (needed)") : null),
    h("p", { class: "note", id: `${id}-hint` }, hint),
    h("div", { class: "choose" }, input, h("label", { for: id, class: "button" }, "Choose files"),
      folder && [folderInput, h("label", { for: `${id}-folder`, class: "button" }, "Choose a folder")], h("span", { class: "note" }, "or drop them here")),
    picked, bar, status, facts, problem);

  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    take(entries.some((entry) => entry.isDirectory) ? await walked(entries) : plain(event.dataTransfer.files));
  });

  function take(entries) {
    entries = withoutTop(entries.filter(({ path }) => !HIDDEN.test(path)));
    if (!entries.length) return;
    const mine = ++chosen;
    input.required = false;
    const name = entries.length === 1 ? entries[0].file.name : `${entries.length} files`;
    const size = entries.reduce((sum, { file }) => sum + file.size, 0);
    picked.textContent = `${name}, ${bytes(size)}`;
    fill(facts);
    fill(problem);
    onStored(null);
    const show = (words, share) => {
      if (mine !== chosen) return;
      bar.classList.remove("hidden");
      bar.value = share;
      status.textContent = `${words}: ${Math.floor(100 * share)}%`;
    };
    current = { name, sent: work(entries, name, show, mine) };
    current.sent.catch((error) => {
      if (mine !== chosen) return;
      bar.classList.add("hidden");
      status.textContent = "";
      fill(problem, problemBox(error, h("button", { type: "button", onclick: () => take(entries) }, "Try again")));
    });
  }

  async function work(entries, name, show, mine) {
    const file = entries.length === 1 ? entries[0].file : await zipOf(entries, (share) => show("Packing", share));
    const found = await factsOf(file, role);
    if (mine === chosen) {
      fill(facts, found.lines.map((line) => h("li", {}, line)));
      onFacts(found);
    }
    const stored = await upload(file, show);
    if (mine === chosen) {
      bar.classList.add("hidden");
      status.textContent = stored.was_here ? "✓ The server has it already: nothing was sent." : "✓ Sent.";
      say(`${name} is with the server.`);
      onStored(stored.id);
    }
    return stored.id;
  }

  return {
    element, role,
    name: () => current?.name ?? null,
    async ready() {
      if (current) return current.sent;
      if (!required) return null;
      input.focus();
      throw new Problem({ title: `${title} is missing`, detail: "No file was chosen.", fix: "Drop one on its field or choose it." });
    },
  };
}

const plain = (files) => [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

// Without the folder that was chosen itself: names of folders are labels.
function withoutTop(entries) {
  const top = entries[0]?.path.split("/")[0] + "/";
  const all = entries.every(({ path }) => path.startsWith(top));
  return all ? entries.map(({ file, path }) => ({ file, path: path.slice(top.length) })) : entries;
}

// The files under what was dropped.
async function walked(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path: entry.fullPath.replace(/^\//, "") });
    else {
      const reader = entry.createReader();
      for (let batch; (batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) found.push(...(await walked(batch)));
    }
  }
  return found;
}
