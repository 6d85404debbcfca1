// Asks before something that cannot be taken back.

/** Return whether the person says yes. */
export function sure(title, text, yes) {
  const dialog = document.getElementById("sure-dialog");
  document.getElementById("sure-title").textContent = title;
  document.getElementById("sure-text").textContent = text;
  document.getElementById("sure-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
