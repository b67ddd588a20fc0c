/* Lets the keyboard scroll what is wider than the page (tables, code, equations), prints every
 * page as it looks in the light theme, for a dark one would put pale ink on paper, and lets the
 * search do without what a folder forbids.
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
})();
