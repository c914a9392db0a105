/** The keyboard: steps through the pass, and cells within a tensor. */

/** @typedef {import("./app.js").App} App */

/** @param {App} app @param {KeyboardEvent} event */
export function onKey(app, event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.key === "Escape" && app.panel.contains(target)) {
    const views = app.column.views.get(`${app.cell.tensor} ${app.cell.of}`) ?? [];
    views.find(({ tile }) => tile.cells.includes(app.cell.at))?.focus(app.cell.at);
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
  const view = app.column.viewOf(target);
  if (view && event.key === "Enter") {
    if (target.dataset.at) app.choose({ tensor: view.tensor, of: view.of, at: Number(target.dataset.at) });
    const first = app.panel.querySelector("#edit") ?? app.panel.querySelector(".microscope a");
    if (first instanceof HTMLElement) first.focus();
    event.preventDefault();
    return;
  }
  const arrow = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 0, ArrowDown: 0 }[event.key];
  if (view && arrow !== undefined) {
    const { cells, columns } = view.tile;
    const chosen = app.cell.tensor === view.tensor && app.cell.of === view.of ? app.cell.at : cells[0];
    const now = Math.max(0, cells.indexOf(Number(target.dataset.at ?? chosen)));
    const next = now + (arrow || (event.key === "ArrowUp" ? -columns : columns));
    const sameRow = Math.floor(next / columns) === Math.floor(now / columns);
    if (next >= 0 && next < cells.length && (sameRow || !arrow)) {
      view.focus(cells[next]);
      app.choose({ tensor: view.tensor, of: view.of, at: cells[next] });
    }
    event.preventDefault();
    return;
  }
  if (event.key === " " && /^(BUTTON|A|SUMMARY)$/.test(target.tagName)) return;
  const to = {
    ArrowLeft: app.step - 1,
    ArrowRight: app.step + 1,
    " ": app.step + 1,
    Home: 0,
    End: app.steps.length - 1,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  app.go(to);
}
