// Tells the service the viewer's zone, so that days and hours are theirs; loads a page again that
// was made for another one.
(() => {
  "use strict";
  let zone = "";
  try {
    zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  } catch {
    return;
  }
  const shown = document.querySelector("[data-zone]");
  if (!zone || !shown) {
    return;
  }
  const cookie = `cubehook-zone=${zone}`;
  const kept = () => document.cookie.split("; ").includes(cookie);
  const known = kept();
  document.cookie = `${cookie}; Path=/; Max-Age=31536000; SameSite=Strict${location.protocol === "https:" ? "; Secure" : ""}`;
  // Once only: a browser may keep no cookies, and the service may not know the zone.
  if (!known && kept() && shown.dataset.zone !== zone) {
    location.reload();
  }
})();
