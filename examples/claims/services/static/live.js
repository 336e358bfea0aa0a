// Keeps a page up to date: it replaces the parts that are marked with data-fresh. Without it the page is right when it is loaded, and says when that was.
"use strict";

const EVERY = 3000;
const live = document.querySelector("[data-live]");

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-fresh]")) {
      const now = fresh.querySelector(`[data-fresh="${part.dataset.fresh}"]`);
      if (now.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) part.replaceWith(now);
    }
    live.classList.remove("away");
    live.textContent = "live";
  } catch {
    live.classList.add("away");
    live.textContent = "the service is away, trying again";
  }
}

setInterval(() => document.hidden || refresh(), EVERY);
