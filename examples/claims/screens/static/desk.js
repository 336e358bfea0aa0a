// Keeps a page of the staff up to date: its inside is fetched again as long as no one types in it.
// Without this script the page is right when it is loaded.
"use strict";

const part = document.querySelector("[data-part]");
const live = document.querySelector("[data-live]");

async function follow() {
  if (!document.hidden) {
    try {
      const answer = await fetch(part.dataset.part);
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.text());
      live.classList.remove("away");
      live.textContent = "live";
    } catch {
      live.classList.add("away");
      live.textContent = "no connection, trying again";
    }
  }
  setTimeout(follow, 1000);
}

function show(html) {
  if (html === part.dataset.shown) return;
  const focused = [...part.querySelectorAll("button, a")].indexOf(document.activeElement);
  part.dataset.shown = html;
  part.innerHTML = html;
  if (focused >= 0) part.querySelectorAll("button, a")[focused]?.focus({ preventScroll: true });
}

if (part) {
  // The buttons work without a new page, so that a reader keeps the place.
  part.addEventListener("submit", async (event) => {
    event.preventDefault();
    await fetch(event.target.action, { method: "POST", body: new FormData(event.target) });
    show(await (await fetch(part.dataset.part)).text());
  });
  setTimeout(follow, 1000);
}
