// Something done again and again until the part of the page that wants it is left.

/** Call `work` now and after as many seconds as it returns (null: no more), slower where the page is not seen. Returns a function that calls it at once. */
export async function repeat(signal, work) {
  let timer, busy = false, wanted = false;
  async function round() {
    clearTimeout(timer);
    if (busy) return void (wanted = true);
    busy = true;
    let seconds;
    try {
      seconds = await work();
    } finally {
      busy = false;
    }
    if (signal.aborted) return;
    if (wanted) {
      wanted = false;
      return round();
    }
    if (seconds !== null) timer = setTimeout(round, 1000 * seconds * (document.hidden ? 5 : 1));
  }
  signal.addEventListener("abort", () => clearTimeout(timer));
  await round();
  return round;
}
