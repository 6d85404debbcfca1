// Who asks: the role and the tenant of the key, and what is used of its quotas.
import { fill, h } from "/web/dom.js";
import { askJson, changeKey, hasKey } from "/web/http.js";
import { bytes } from "/web/words.js";

const QUOTAS = {
  jobs_at_once: ["jobs at once", String],
  jobs_per_day: ["jobs today", String],
  stored_bytes: ["stored", bytes],
  gpu_minutes_per_day: ["GPU minutes today", String],
  gpu_minutes_per_month: ["GPU minutes this month", String],
  cpu_minutes_per_day: ["processor minutes today", String],
  cpu_minutes_per_month: ["processor minutes this month", String],
};

/** Return the caller as the server knows it, and tell it in the head of the page. Asks for the key where the server wants one. */
export async function caller(signal) {
  const found = await askJson("/v1/usage", { signal });
  if (hasKey()) fill(document.getElementById("who"), `Tenant ${found.tenant}, role ${found.key.role} `, h("button", { type: "button", onclick: changeKey }, "Use another key"));
  return found;
}

/** Whether the caller may submit, cancel and delete. */
export const mayChange = ({ key }) => key.role !== "read";

/** Return what is used of each quota that there is, in words; "" where there is none. */
export function usageWords({ quotas }) {
  const limited = Object.entries(QUOTAS).filter(([name]) => (quotas[name]?.limit ?? null) !== null);
  return limited.map(([name, [words, say]]) => `${words}: ${say(quotas[name].used)} of ${say(quotas[name].limit)}`).join("; ");
}
