/* Lets the keyboard scroll what is wider than the page: tables, code and equations. */
(() => {
  "use strict";
  const WIDE = "table.dataframe, .bd-article pre, div.math, .table-responsive";
  const mark = () => {
    for (const element of document.querySelectorAll(WIDE)) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    }
  };
  addEventListener("load", mark);
  addEventListener("resize", mark);
})();
