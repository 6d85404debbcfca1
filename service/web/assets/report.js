// A job's report, drawn in a frame that can reach neither this page nor the server: names in it come from a user's model.
import { fill, h, part, problemBox, told } from "/web/dom.js";
import { ask, download } from "/web/http.js";
import { nameOf } from "/web/names.js";

/** Draw the report. */
export async function reportPage(main, signal, id) {
  const path = `/v1/jobs/${encodeURIComponent(id)}/artifacts/report.html`;
  const text = await (await ask(path, { signal })).text();
  const frame = h("iframe", { src: "/web/report-frame.html", sandbox: "allow-scripts", title: `Report of ${nameOf(id)}`, class: "report" });
  addEventListener("message", (event) => {
    if (event.source === frame.contentWindow && event.data === "ready") frame.contentWindow.postMessage(text, "*");
  }, { signal });
  const trouble = part((problem) => (problem ? problemBox(problem) : ""));
  fill(main, h("div", { class: "bar" }, h("h1", {}, `Report of ${nameOf(id)}`),
    h("a", { class: "button", href: `#/jobs/${id}` }, "Back to the job"),
    h("button", { type: "button", onclick: () => download(path, `report-${id}.html`).catch((error) => trouble.show(told(error))) }, "Download")), trouble.element, frame);
}
