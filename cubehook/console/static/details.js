// What the viewer has opened or closed stays so when a part of the page comes anew.
(() => {
  "use strict";
  document.addEventListener("DOMContentLoaded", () => {
    if (window.Idiomorph) {
      Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
    }
  });
  // An address that names an attempt opens it.
  const named = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (named && named.tagName === "DETAILS") {
    named.open = true;
    named.scrollIntoView();
  }
})();
