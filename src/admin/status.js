"use strict";
// Puts what status.json says in its places, once a second, while the page is seen.
(() => {
  const all = (selector) => document.querySelectorAll(selector);
  const lost = document.getElementById("lost");
  let answered = Date.now();

  const row = (cells) => {
    const tr = document.createElement("tr");
    cells.forEach((text, at) => {
      const cell = document.createElement(at ? "td" : "th");
      cell.textContent = text;
      if (text === "0") cell.className = "zero";
      tr.append(cell);
    });
    return tr;
  };

  const put = (view) => {
    document.body.dataset.state = view.state;
    document.title = view.text.title + " - tidegate";
    for (const e of all("[data-t]")) {
      const text = view.text[e.dataset.t] ?? "";
      // Only what changed is touched, so that a screen reader says what is new and no more.
      if (e.textContent !== text) e.textContent = text;
    }
    for (const e of all("[data-d]")) e.setAttribute("d", view.path[e.dataset.d] ?? "");
    for (const e of all("[data-w]")) e.setAttribute("width", view.meter[e.dataset.w] ?? 0);
    for (const e of all("[data-r]")) e.replaceChildren(...(view.rows[e.dataset.r] ?? []).map(row));
  };

  const poll = async () => {
    if (!document.hidden) {
      try {
        const reply = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(3000) });
        put((await reply.json()).view);
        answered = Date.now();
        lost.hidden = true;
      } catch {
        const seconds = Math.round((Date.now() - answered) / 1000);
        document.body.dataset.state = "lost";
        lost.textContent = `No answer for ${seconds} s: what is shown here is that old.`;
        lost.hidden = false;
      }
    }
    setTimeout(poll, 1000);
  };

  document.getElementById("live").className = "on";
  document.addEventListener("visibilitychange", () => { answered = Math.max(answered, Date.now() - 1000); });
  setTimeout(poll, 1000);
})();
