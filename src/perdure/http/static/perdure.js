// Keeps a page up to date while it changes, through server-sent events or else by polling.
// The new page replaces the old one, unless the visitor is filling in a form, has selected text, or is on another tab.
// While the server cannot be reached, the old page stays, says so, and retries.
"use strict";
{
  const { refresh, events, cursor, zone, base, method } = document.body.dataset;
  // The server shows times in the visitor's time zone, which only the browser knows.
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone === "unknown" && here && here !== "UTC" && navigator.cookieEnabled) {
    document.cookie = `perdure_zone=${here}; path=${base || "/"}; max-age=31536000; samesite=lax`;
    if (method === "GET" && document.cookie.includes("perdure_zone=")) location.reload();
  }
  const seconds = Number(refresh);
  const live = document.querySelector(".live");
  const main = document.querySelector("main");
  let touched = false, due = false, busyWith = null;
  const say = (words, away = false) => {
    if (!live || live.textContent === words) return;  // otherwise a screen reader repeats it
    live.textContent = words;
    live.classList.toggle("away", away);
  };
  const touch = () => {
    touched = true;
    say("");
  };
  main.addEventListener("input", touch);
  main.addEventListener("toggle", touch, true);
  const busy = () => touched || document.hidden || !getSelection().isCollapsed ||
    document.activeElement?.matches("input, textarea, select, .tasks a") ||
    document.querySelector(".tasks:hover, dialog[open]");

  // While the visitor points at the list of instances, or reads further down, its rows change where they are. New ones
  // wait behind a button, so that nothing moves under the cursor.
  const held = () => {
    const list = main.querySelector(".instances tbody");
    return list && main.querySelector(".fresh") && (list.matches(":hover") || list.contains(document.activeElement) || scrollY > 60)
      ? list : null;
  };
  const hold = (list, found) => {
    const rows = new Map([...found.querySelectorAll(".instances tbody tr")].map((row) => [row.dataset.id, row]));
    for (const row of list.rows) {
      const changed = rows.get(row.dataset.id);
      rows.delete(row.dataset.id);
      if (changed && changed.innerHTML !== row.innerHTML) row.replaceChildren(...changed.cloneNode(true).childNodes);
    }
    const fresh = main.querySelector(".fresh"), button = fresh.querySelector("button");
    fresh.hidden = rows.size === 0;
    button.textContent = `${rows.size} new`;
    button.onclick = () => { main.replaceChildren(...found.querySelector("main").childNodes); scrollTo(0, 0); };
  };

  const put = (text) => {
    const found = new DOMParser().parseFromString(text, "text/html");
    if (busy()) { due = true; return; }
    const list = held();
    if (list) hold(list, found);
    else main.replaceChildren(...found.querySelector("main").childNodes);
    document.title = found.title;
    say(document.body.dataset.live);
    if (!found.body.dataset.refresh) stop();
  };
  const wait = (why) => {
    due = true;
    if (!touched) say(document.body.dataset[why], true);
  };
  const show = async () => {
    if (busyWith || busy()) { due = true; return; }
    due = false;
    busyWith = fetch(location.href, { headers: { Accept: "text/html" } });
    try {
      const answer = await busyWith;
      if (answer.status >= 500) wait("noStore");
      else if (answer.status === 429) wait("busy");
      else if (!answer.ok || answer.redirected) location.reload();
      else put(await answer.text());
    } catch { wait("away"); } finally { busyWith = null; }
  };

  let source = null, timers = [];
  const stop = () => {
    source?.close();
    timers.forEach(clearInterval);
    due = false;
    say("");
  };
  const every = (pause, act) => timers.push(setInterval(act, pause));
  let polling = false;
  const poll = () => {
    if (!polling) every(seconds * 1000, show);
    polling = true;
  };
  if (seconds > 0) every(2000, () => { if (due) show(); });
  if (seconds > 0 && events) {
    let first = true;
    const soon = ({ type, lastEventId }) => {
      // The stream begins with the current state. A page that was made from this very state already shows it.
      const shown = lastEventId === cursor && (first || type !== "status");
      first = false;
      if (shown) return;
      clearTimeout(soon.timer);
      soon.timer = setTimeout(show, 150);
    };
    source = new EventSource(events);
    for (const name of ["status", "list", "instance"]) source.addEventListener(name, soon);
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) poll();
      else due = true;  // the browser reconnects by itself; a reload shows whether the server can be reached
    };
  } else if (seconds > 0) poll();

  // A list has a text area with a line for each item. Here each line is a row of its own.
  for (const area of document.querySelectorAll("textarea.rows")) {
    const rows = document.createElement("div"), more = document.createElement("button");
    const row = (text) => {
      const input = document.createElement("input");
      input.value = text;
      input.ariaLabel = `${area.dataset.label} ${rows.childElementCount + 1}`;
      input.addEventListener("input", keep);
      rows.append(input);
      return input;
    };
    const keep = () => { area.value = [...rows.children].map((one) => one.value).join("\n"); };
    area.value.split("\n").forEach(row);
    more.type = "button";
    more.textContent = area.dataset.more;
    more.addEventListener("click", () => row("").focus());
    rows.className = "rows";
    area.after(rows, more);
    area.hidden = document.getElementById(`${area.id}-rows`).hidden = true;
    document.querySelector(`label[for="${CSS.escape(area.id)}"]`)?.removeAttribute("for");
  }

  // The button of an answer says what it does: the chosen answer.
  for (const form of document.querySelectorAll("form.decide")) {
    const send = form.querySelector("button.primary"), first = form.querySelector("fieldset");
    first?.addEventListener("change", ({ target }) => { send.textContent = target.dataset.says ?? send.textContent; });
  }

  const shortcuts = document.getElementById("shortcuts");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (event.key === "?") shortcuts?.showModal();
    else if (event.key === "/" && !document.querySelector(".desk")) document.querySelector("[role=search] input")?.focus();
    else return;
    event.preventDefault();
  });

  // The list of instances: j and k move.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !"jk".includes(event.key) || event.target.matches("input, textarea, select")) return;
    const links = [...document.querySelectorAll(".instances tbody .ident a")];
    const at = links.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1);
    links[Math.max(0, Math.min(at, links.length - 1))]?.focus();
  });

  // The inbox: j and k move in the list, c and r claim and release, other letters choose an answer. No letter sends one.
  const desk = document.querySelector(".desk");
  if (desk) document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=radio]), textarea, select")) return;
    const links = [...document.querySelectorAll(".tasks a")];
    const at = Math.max(links.indexOf(document.activeElement), links.findIndex((one) => one.ariaCurrent));
    const key = event.key.toLowerCase();
    if (key === "j") links[Math.min(at + 1, links.length - 1)]?.focus();
    else if (key === "k") links[Math.max(at - 1, 0)]?.focus();
    else if (key === "/") document.querySelector("#search").focus();
    else {
      const found = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
      if (!found) return;
      found.focus();
      found.click();
    }
    event.preventDefault();
  });
}
