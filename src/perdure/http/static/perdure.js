// Reloads a page that is still changing, unless somebody fills in a form, reads something, or looks elsewhere.
"use strict";
{
  const seconds = Number(document.body.dataset.refresh);
  const live = document.querySelector(".live");
  let touched = false;
  const touch = () => {
    touched = true;
    if (seconds > 0) live.textContent = "";
  };
  document.addEventListener("input", touch);
  document.addEventListener("toggle", touch, true);
  const busy = () => touched || document.hidden || !getSelection().isCollapsed ||
    document.activeElement?.matches("input, textarea, select");
  if (seconds > 0) setInterval(() => { if (!busy()) location.reload(); }, seconds * 1000);
}
