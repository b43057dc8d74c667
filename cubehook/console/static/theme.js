// Before anything is painted: the theme that the viewer chose, and that scripts run.
(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("scripted");
  try {
    var theme = localStorage.getItem("cubehook-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch (error) { /* Storage may be closed to us; the system's theme it is. */ }
})();
