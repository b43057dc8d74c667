// What the console does in the browser: times in the viewer's zone, themes, copying, and parts that stay
// current. Everything else is forms and links.
(function () {
  "use strict";

  // Times

  var SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
  // The server's clock counts: a viewer's may be wrong. Both count on at the same pace.
  var skew = 0;

  function formatter(options) {
    return new Intl.DateTimeFormat(undefined, options);
  }
  var clock = formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  var moment = formatter({
    day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit"
  });
  var zoned = formatter({
    weekday: "short", day: "numeric", month: "short", year: "numeric",
    hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short"
  });

  function rough(span) {
    if (span < 5 * SECOND) return null;
    if (span < MINUTE) return Math.floor(span / SECOND) + " s";
    if (span < HOUR) return Math.floor(span / MINUTE) + " min";
    if (span < DAY) return Math.floor(span / HOUR) + " h";
    var days = Math.floor(span / DAY);
    return days + (days === 1 ? " day" : " days");
  }

  function ago(then, now) {
    var words = rough(Math.abs(now - then));
    return words === null ? "just now" : now >= then ? words + " ago" : "in " + words;
  }

  function timer(span) {
    var seconds = Math.max(0, Math.floor(span / SECOND));
    var hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
    var tail = String(seconds % 60).padStart(2, "0");
    return hours ? hours + ":" + String(minutes).padStart(2, "0") + ":" + tail : minutes + ":" + tail;
  }

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function showTime(element, now) {
    var then = Date.parse(element.dateTime);
    if (isNaN(then)) return;
    var style = element.dataset.time;
    // What has come anew has no title of ours yet; the rest does not change.
    if (element.dataset.exact && style !== "ago" && style !== "running") return;
    if (style === "ago") put(element, ago(then, now));
    else if (style === "running") put(element, timer(now - then));
    else put(element, (style === "clock" ? clock : moment).format(then));
    if (!element.dataset.exact) {
      element.dataset.exact = element.title;
      element.title = zoned.format(then) + "\n" + element.title;
    }
  }

  function showTimes(within) {
    var now = Date.now() + skew;
    within.querySelectorAll("time[data-time]").forEach(function (element) { showTime(element, now); });
  }

  function tick() {
    var now = Date.now() + skew;
    document.querySelectorAll('time[data-time="running"], time[data-time="ago"]').forEach(function (element) {
      showTime(element, now);
    });
  }

  // Themes: as the system has it, light, dark

  var THEMES = ["system", "light", "dark"];

  function theme() {
    return document.documentElement.dataset.theme || "system";
  }

  function nameTheme(button) {
    put(button.querySelector("[data-theme-name]"), { system: "System theme", light: "Light", dark: "Dark" }[theme()]);
    button.hidden = false;
  }

  function switchTheme(button) {
    var next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("cubehook-theme");
      else localStorage.setItem("cubehook-theme", next);
    } catch (error) { /* It holds for this page then. */ }
    nameTheme(button);
    document.dispatchEvent(new CustomEvent("cubehook:theme"));
  }

  // Copying

  function copy(button) {
    var source = document.getElementById(button.dataset.copy);
    if (!source) return;
    var text = "value" in source ? source.value : source.textContent;
    function done(worked) {
      var label = button.querySelector("[data-copy-label]");
      var before = button.dataset.label || (button.dataset.label = label.textContent);
      label.textContent = worked ? "Copied" : "Press Ctrl+C";
      setTimeout(function () { label.textContent = before; }, 2000);
    }
    function byHand() {
      // Over plain HTTP browsers keep the clipboard from scripts, but for this.
      var range = document.createRange(), selection = getSelection();
      if ("select" in source) source.select();
      else {
        range.selectNodeContents(source);
        selection.removeAllRanges();
        selection.addRange(range);
      }
      var worked = false;
      try { worked = document.execCommand("copy"); } catch (error) { worked = false; }
      if (worked && selection) selection.removeAllRanges();
      done(worked);
    }
    if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(text).then(function () { done(true); }, byHand);
    else byHand();
  }

  // Parts that stay current

  function stale(is) {
    var notice = document.querySelector("[data-stale]");
    if (!notice || notice.hidden === !is) return;
    notice.hidden = !is;
    if (is) put(notice.querySelector("[data-stale-since]"), clock.format(Date.now()));
  }

  // Of hundreds of parts most are the same as before: those are not looked into. data-same="all that they show"
  function skipTheSame() {
    if (!window.Idiomorph) return;
    Idiomorph.defaults.callbacks.beforeNodeMorphed = function (old, fresh) {
      return !(old.dataset && fresh.dataset && old.id === fresh.id && old.dataset.same && old.dataset.same === fresh.dataset.same);
    };
  }

  function prepare(within) {
    showTimes(within);
    within.querySelectorAll("[data-copy]").forEach(function (button) { button.hidden = false; });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy], [data-theme-switch], [data-add-row], [data-remove-row]");
    if (button && "copy" in button.dataset) copy(button);
    else if (button && "themeSwitch" in button.dataset) switchTheme(button);
    else if (button && "addRow" in button.dataset) addRow(button);
    else if (button && "removeRow" in button.dataset) removeRow(button);
    document.querySelectorAll("details[data-menu][open]").forEach(function (menu) {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });

  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    var open = event.target.closest && event.target.closest("details[data-menu][open]");
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });

  // The navigation: beside the page where there is room, else in a menu

  function navigation() {
    var menu = document.querySelector("[data-nav]"), wide = matchMedia("(min-width: 56rem)");
    if (!menu) return;
    function fit() { menu.open = wide.matches; }
    fit();
    menu.dataset.ready = "";
    wide.addEventListener("change", fit);
    document.addEventListener("click", function (event) {
      if (!wide.matches && !menu.contains(event.target)) menu.open = false;
    });
    menu.addEventListener("keydown", function (event) {
      if (event.key !== "Escape" || wide.matches) return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  }

  // Rows of pairs, such as headers: one more, one less

  function addRow(button) {
    var rows = document.getElementById(button.dataset.addRow);
    var fresh = rows.querySelector("template").content.cloneNode(true);
    rows.appendChild(fresh);
    rows.lastElementChild.querySelector("input").focus();
  }

  function removeRow(button) {
    var row = button.closest("[data-row]"), rows = row.parentElement;
    row.remove();
    var left = rows.querySelector("input");
    if (left) left.focus();
  }

  // What shows only where it belongs to the choice made: data-when="name=value other"

  function choices(form) {
    form.querySelectorAll("[data-when], [data-unless]").forEach(function (part) {
      var rule = part.dataset.when || part.dataset.unless, at = rule.indexOf("=");
      var control = form.elements[rule.slice(0, at)];
      if (!control) return;
      var chosen = rule.slice(at + 1).split(" ").indexOf(control.value) >= 0;
      part.hidden = "when" in part.dataset ? !chosen : chosen;
    });
  }

  // A field that goes with another until somebody writes into it: data-follow="id" data-pattern="http://HOST/NAME"

  function follow(leader) {
    var form = leader.form;
    if (!form) return;
    form.querySelectorAll('[data-follow="' + leader.name + '"]').forEach(function (field) {
      if (field.dataset.own) return;
      var text = leader.value.trim().toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "");
      field.value = text ? field.dataset.pattern.replace("NAME", text) : "";
    });
  }

  document.addEventListener("input", function (event) {
    if (event.target.dataset.follow) event.target.dataset.own = "yes";
    else if (event.target.name) follow(event.target);
  });

  document.addEventListener("change", function (event) {
    var form = event.target.form;
    if (form) choices(form);
    if (form && "submitOnChange" in form.dataset) form.requestSubmit();
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    // Nobody looks: ask again when somebody does.
    if (document.hidden && event.detail.requestConfig.verb === "get") event.preventDefault();
  });
  document.addEventListener("htmx:afterRequest", function (event) {
    var xhr = event.detail.xhr;
    stale(!(xhr && xhr.status && xhr.status < 502));
  });

  // What an action says for itself: that it is under way, then the gist of what came back. data-says="ID"

  function sayer(event) {
    var source = event.detail.elt && event.detail.elt.closest && event.detail.elt.closest("[data-says]");
    return source && document.getElementById(source.dataset.says);
  }
  document.addEventListener("htmx:beforeSend", function (event) {
    var place = sayer(event);
    if (!place) return;
    place.classList.remove("sr");
    put(place, "Sending …");
  });
  document.addEventListener("htmx:afterRequest", function (event) {
    var place = sayer(event);
    if (!place) return;
    if (!event.detail.successful) return put(place, "That did not work: try again.");
    // Once what came stands in the page, only those who do not see it must be told.
    setTimeout(function () {
      place.classList.add("sr");
      var gist = document.querySelector("#tried [data-gist]");
      put(place, gist ? gist.textContent.trim() : "");
    });
  });

  document.addEventListener("DOMContentLoaded", start);

  function start() {
    var at = document.querySelector("meta[name=cubehook-now]");
    if (at) skew = Date.parse(at.content) - Date.now();
    skipTheSame();
    prepare(document);
    document.querySelectorAll("[data-theme-switch]").forEach(nameTheme);
    document.querySelectorAll("form").forEach(choices);
    navigation();
    // A form that was refused: to the first field with which something is wrong.
    var wrong = document.querySelector("main [aria-invalid]");
    if (wrong) wrong.focus();
    // Before it is painted, what has come is in the viewer's zone. Our own changes are no news.
    var news = new MutationObserver(function () {
      prepare(document.body);
      document.querySelectorAll("form").forEach(choices);
      news.takeRecords();
    });
    news.observe(document.body, { childList: true, characterData: true, subtree: true });
    setInterval(function () {
      tick();
      news.takeRecords();
    }, SECOND);
  }
})();
