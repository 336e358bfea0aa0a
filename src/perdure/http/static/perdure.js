// Keeps a page up to date while it changes: told by the server where it can tell, by looking again where it cannot.
// The new page takes the place of the old one, unless somebody fills in a form, reads something, or looks elsewhere.
"use strict";
{
  const { refresh, events } = document.body.dataset;
  const seconds = Number(refresh);
  const live = document.querySelector(".live");
  const main = document.querySelector("main");
  let touched = false, due = false, busyWith = null;
  const touch = () => {
    touched = true;
    if (live) live.textContent = "";
  };
  main.addEventListener("input", touch);
  main.addEventListener("toggle", touch, true);
  const busy = () => touched || document.hidden || !getSelection().isCollapsed ||
    document.activeElement?.matches("input, textarea, select");

  const show = async () => {
    if (busyWith || busy()) { due = true; return; }
    due = false;
    busyWith = fetch(location.href, { headers: { Accept: "text/html" } });
    try {
      const answer = await busyWith;
      if (!answer.ok || answer.redirected) { location.reload(); return; }
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (busy()) { due = true; return; }
      main.replaceChildren(...found.querySelector("main").childNodes);
      document.title = found.title;
      if (!found.body.dataset.refresh) stop();
    } catch { due = true; } finally { busyWith = null; }
  };

  let source = null, timer = null;
  const stop = () => {
    source?.close();
    clearInterval(timer);
    if (live) live.textContent = "";
  };
  const poll = () => { timer ??= setInterval(show, seconds * 1000); };
  if (seconds > 0 && events) {
    let first = true;
    const soon = () => {
      if (first) { first = false; return; }  // the page is as new as what it is told at first
      clearTimeout(soon.timer);
      soon.timer = setTimeout(show, 150);
    };
    source = new EventSource(events);
    for (const name of ["status", "list", "instance"]) source.addEventListener(name, soon);
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) poll(); };
    setInterval(() => { if (due) show(); }, 2000);
  } else if (seconds > 0) poll();
}
