// The list of jobs, newest first.
import { caller, usageWords } from "/web/caller.js";
import { fill, h, part, problemBox, table, toldMeanwhile } from "/web/dom.js";
import { askJson } from "/web/http.js";
import { titleOf } from "/web/names.js";
import { OTHERS } from "/web/scatter.js";
import { repeat } from "/web/repeat.js";
import { isFinished, moment, percent, speedWords, STATES, took } from "/web/words.js";

const PAGE = 20;
const SECONDS = 2;

/** Draw the list and keep it fresh. */
export async function jobsPage(main, signal) {
  const me = await caller(signal);
  const chosen = new Set();
  let pages = 1;
  const state = h("select", { id: "state", onchange: () => again() },
    h("option", { value: "" }, "all"), Object.entries(STATES).map(([name, { words }]) => h("option", { value: name }, words)));
  const compare = h("button", { type: "button", disabled: true, onclick: () => (location.hash = `#/compare/${[...chosen].join(",")}`) }, "Compare");
  const more = h("button", { type: "button", class: "hidden", onclick: () => ((pages += 1), again()) }, "Show older ones");
  const list = part(({ jobs, only }) => (jobs.length ? rows(jobs) : only ? h("p", {}, `No job is ${STATES[only].words}.`) : h("p", {}, "No jobs yet. ", h("a", { href: "#/new" }, "Start one"), ".")));
  const trouble = part((problem) => (problem ? problemBox(problem) : ""));
  const count = () => {
    compare.disabled = chosen.size < 2 || chosen.size > OTHERS.length;
    compare.textContent = compare.disabled ? `Compare (choose two to ${OTHERS.length})` : `Compare ${chosen.size} jobs`;
  };

  function rows(jobs) {
    const box = (job) => h("input", { type: "checkbox", "aria-label": `Compare ${titleOf(job.id)}`, "data-key": `compare ${job.id}`, checked: chosen.has(job.id), disabled: job.state !== "succeeded",
      onchange: (event) => (event.target.checked ? chosen.add(job.id) : chosen.delete(job.id), count()) });
    return table("Jobs, newest first", [
      { title: "Job", cell: (job) => h("a", { href: `#/jobs/${job.id}` }, titleOf(job.id)) },
      { title: "State", cell: (job) => [badge(job), job.state === "running" ? ` ${percent(job.progress, 0)}` : ""] },
      { title: "Target", cell: (job) => job.target },
      ...(jobs.some(({ tenant }) => tenant !== me.tenant) ? [{ title: "Tenant", cell: (job) => job.tenant }] : []),
      { title: "Found", cell: (job) => speedWords(job.outcome && job) },
      { title: "Submitted", cell: (job) => h("time", { datetime: job.created_at }, moment(job.created_at)) },
      { title: "Took", cell: took, number: true },
      { title: "Compare", cell: box },
    ], jobs);
  }

  const again = await repeat(signal, async () => {
    const jobs = [], only = state.value;
    let next = null;
    try {
      for (let page = 0; page < pages && (page === 0 || next); page++) {
        const query = new URLSearchParams({ limit: PAGE, ...(only && { state: only }), ...(next && { cursor: next }) });
        const answer = await askJson(`/v1/jobs?${query}`, { signal });
        jobs.push(...answer.jobs);
        next = answer.next_cursor;
      }
    } catch (error) {
      if (signal.aborted) return null;
      trouble.show(toldMeanwhile(error));
      return SECONDS * 3;
    }
    trouble.show(null);
    list.show({ jobs, only });
    more.classList.toggle("hidden", !next);
    return jobs.every(isFinished) ? SECONDS * 3 : SECONDS;
  });
  count();
  const used = usageWords(me);
  fill(main, h("h1", {}, "Jobs"), used ? h("p", { class: "note" }, `Tenant ${me.tenant}: ${used}.`) : null,
    h("div", { class: "bar" }, h("label", { for: "state" }, "Show "), state, compare),
    trouble.element, list.element, more);
}

/** Return a job's state, told by a sign and a word, not by colour alone. */
export const badge = (job) => h("span", { class: `badge ${job.state}` }, h("span", { "aria-hidden": "true" }, STATES[job.state]?.sign ?? "?"), ` ${STATES[job.state]?.words ?? job.state}`);
