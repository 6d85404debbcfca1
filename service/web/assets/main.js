// The page: which part of it is shown follows from the address behind the #.
import { fill, h, problemBox } from "/web/dom.js";
import { comparePage } from "/web/compare.js";
import { jobPage } from "/web/job.js";
import { jobsPage } from "/web/jobs.js";
import { newJobPage } from "/web/new-job.js";
import { reportPage } from "/web/report.js";

const ROUTES = [
  [/^#\/new$/, "new", "New job", (main, signal) => newJobPage(main, signal)],
  [/^#\/jobs$/, "jobs", "Jobs", (main, signal) => jobsPage(main, signal)],
  [/^#\/jobs\/([\w-]+)$/, "jobs", "Job", (main, signal, id) => jobPage(main, signal, id)],
  [/^#\/jobs\/([\w-]+)\/report$/, "jobs", "Report", (main, signal, id) => reportPage(main, signal, id)],
  [/^#\/compare\/([\w,-]+)$/, "jobs", "Compare jobs", (main, signal, ids) => comparePage(main, signal, ids.split(","))],
];
let leaving = new AbortController();

async function show(isFirst) {
  leaving.abort(); // ends the requests and timers of the part that was shown
  leaving = new AbortController();
  const { signal } = leaving;
  const main = document.getElementById("main");
  const found = ROUTES.map(([pattern, ...route]) => [pattern.exec(location.hash), ...route]).find(([match]) => match);
  if (!found) {
    history.replaceState(null, "", "#/new");
    return show(isFirst);
  }
  const [match, page, title, draw] = found;
  document.title = `${title} · ONNX-TRT Optimizer`;
  for (const link of document.querySelectorAll("nav [data-page]")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.className = `page-${page}`;
  fill(main, h("p", { class: "note" }, "Loading ..."));
  try {
    await draw(main, signal, ...match.slice(1));
  } catch (error) {
    if (signal.aborted) return;
    fill(main, h("h1", {}, title), problemBox(error, h("button", { type: "button", onclick: () => show(false) }, "Try again"),
      page === "jobs" ? [" ", h("a", { class: "button", href: "#/jobs" }, "All jobs")] : null));
  }
  if (isFirst || signal.aborted) return;
  const heading = main.querySelector("h1"); // so that those who hear the page know where they are
  heading?.setAttribute("tabindex", "-1");
  heading?.focus();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the # of the address tells the page
  document.getElementById("main").focus();
});
addEventListener("hashchange", () => show(false));
// A file that misses its field must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
show(true);
