/* Lets the keyboard scroll what is wider than the page (tables, code, equations), shows what a term
 * means, prints every page as it looks in the light theme, for a dark one would put pale ink on
 * paper, and lets the search do without what a folder forbids.
 */
(() => {
  "use strict";
  const WIDE = "table.dataframe, .bd-article pre, div.math"; // the theme sees to other tables
  const mark = () => {
    for (const element of document.querySelectorAll(WIDE)) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    }
  };
  // The search fetches an excerpt of each page that it found; from a folder it lists their titles.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  const root = document.documentElement;
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => (root.dataset.theme = theme));
  addEventListener("load", mark);
  addEventListener("resize", mark);
  addEventListener("toggle", mark, true); // what a fold hides has no width yet

  // A term shows its definition under the pointer and the focus; on a touch screen, which has
  // neither, the first tap shows it and the second follows the link. A popover closes of itself with
  // a tap beside it, and with Esc where the reader has done more than move the focus.
  for (const term of document.querySelectorAll("a[aria-describedby^=tip-]")) {
    const tip = document.getElementById(term.getAttribute("aria-describedby"));
    let closing;
    const show = () => {
      clearTimeout(closing);
      tip.showPopover();
      const word = term.getClientRects()[0];
      const left = Math.min(word.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
      const below = word.bottom + tip.offsetHeight + 8 < innerHeight;
      const top = below ? word.bottom + 4 : word.top - tip.offsetHeight - 4;
      tip.style.left = `${Math.max(left, 8) + scrollX}px`;
      tip.style.top = `${top + scrollY}px`;
    };
    const isShown = () => tip.matches(":popover-open");
    const hide = () => (closing = setTimeout(() => tip.hidePopover(), 200)); // time to reach it
    addEventListener("keydown", (event) => event.key === "Escape" && tip.hidePopover());
    const stays = () => clearTimeout(closing);
    let touched = false;
    const isTouch = (event) => event.pointerType === "touch";
    term.addEventListener("pointerdown", (event) => (touched = isTouch(event) && !isShown()));
    term.addEventListener("pointerenter", (event) => isTouch(event) || show());
    term.addEventListener("pointerleave", (event) => isTouch(event) || hide());
    term.addEventListener("focus", () => !touched && show());
    term.addEventListener("blur", hide);
    tip.addEventListener("pointerenter", stays);
    tip.addEventListener("pointerleave", hide);
    term.addEventListener("click", (event) => {
      if (!touched) return;
      touched = false;
      event.preventDefault();
      show();
    });
  }
})();
