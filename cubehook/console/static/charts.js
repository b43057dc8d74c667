// Draws the charts of a page from the tables that stand below them, with uPlot.
// A table is what there is without this script, and stays there for whoever prefers it.
//
//   <figure class="chart" data-chart="steps|bars|lines">
//     <div class="chart-plot"></div>
//     <table> ... <th data-colour="--series-1" data-unit="count|seconds|percent"> ...
//       <tr><th data-value="SECONDS SINCE THE EPOCH"> <td data-value="3"> <td data-value=""> ...
(() => {
  "use strict";

  const HEIGHT = 220;
  // Seconds between the times below a chart: nothing is counted more often than once a minute.
  const TIMES = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, ...[1, 2, 3, 7, 14, 28, 56, 112].map((days) => days * 86400)];
  const drawn = new Map();

  const property = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const timer = (seconds) => {
    const whole = Math.round(seconds);
    if (whole < 60) {
      return `${seconds < 10 ? Math.round(seconds * 10) / 10 : whole} s`;
    }
    const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    const digits = parts.map((part) => String(part).padStart(2, "0"));
    return parts[0] ? `${parts[0]}:${digits[1]}:${digits[2]}` : `${parts[1]}:${digits[2]}`;
  };

  const units = {
    count: (value) => value.toLocaleString(undefined, { maximumFractionDigits: 1 }),
    seconds: timer,
    percent: (value) => `${value.toLocaleString(undefined, { maximumFractionDigits: 1 })} %`,
  };

  const written = (unit) => (plot, value) => (value === null || value === undefined ? "–" : units[unit](value));

  function read(table) {
    const heads = [...table.tHead.rows[0].cells].slice(1);
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const column = (index) =>
      rows.map((row) => {
        const text = row.cells[index].dataset.value;
        return text === undefined || text === "" ? null : Number(text);
      });
    return {
      series: heads.map((head) => ({
        label: head.textContent.trim(),
        unit: head.dataset.unit || "count",
        colour: head.dataset.colour || "--accent",
      })),
      data: [column(0), ...heads.map((head, index) => column(index + 1))],
    };
  }

  function widthOf(times) {
    return times.length > 1 ? times[1] - times[0] : 3600;
  }

  // From the first time to the last; a single one stands amid two hours, not two years.
  function span(kind, times, first, last) {
    if (kind === "bars") {
      return [first, last + widthOf(times)];
    }
    return times.length > 1 ? [first, last] : [times[0] - 3600, times[0] + 3600];
  }

  function translucent(colour, share) {
    return `color-mix(in srgb, ${colour} ${share}%, transparent)`;
  }

  function options(figure, found, width) {
    const kind = figure.dataset.chart;
    const text = property("--chart-text") || property("--text") || "#555";
    const grid = property("--chart-grid") || property("--line") || "#ddd";
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const unit = found.series[0].unit;
    const paths = {
      bars: uPlot.paths.bars({ size: [0.8, 48], align: 1, radius: 0.1 }),
      steps: uPlot.paths.stepped({ align: 1 }),
      lines: uPlot.paths.linear(),
    }[kind];
    const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
    return {
      width,
      height: HEIGHT,
      padding: [12, 22, 0, 0],
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      legend: { live: true },
      scales: {
        // A bar stands for what follows its time: the last one has room too.
        x: { time: true, range: (plot, first, last) => span(kind, found.data[0], first, last) },
        y: { range: (plot, least, most) => [0, unit === "percent" ? 100 : Math.max(most || 0, unit === "count" ? 4 : 1) * 1.08] },
      },
      axes: [
        { ...axis, space: 72, incrs: TIMES, values: (plot, splits, index, space, step) => splits.map((at, number) => tick(at, step, number === 0)) },
        {
          ...axis,
          size: 56,
          space: 28,
          incrs: unit === "count" ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6] : unit === "seconds" ? [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200] : undefined,
          values: (plot, splits) => splits.map((value) => units[unit](value)),
        },
      ],
      series: [
        { label: "Time", value: (plot, at) => (at === null || at === undefined ? "–" : stamp(at)) },
        ...found.series.map((series) => {
          const colour = property(series.colour) || "#06c";
          return {
            label: series.label,
            value: written(series.unit),
            stroke: colour,
            width: kind === "bars" ? 0 : 2,
            fill: kind === "bars" ? colour : kind === "steps" ? translucent(colour, 22) : undefined,
            paths,
            // Averages of hours without calls are not known, and not missed.
            spanGaps: kind === "lines",
            // A lone value is no line, but a point.
            points: kind === "lines" ? { size: 5 } : { show: kind === "steps" && found.data[0].length === 1, size: 5 },
          };
        }),
      ],
    };
  }

  // Days under midnight, hours between; both under the first.
  function tick(at, step, first) {
    const when = new Date(at * 1000);
    const day = when.toLocaleDateString(undefined, { day: "numeric", month: "short" });
    if (step >= 86400) {
      return day;
    }
    const hour = when.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
    return first ? `${hour}\n${day}` : when.getHours() === 0 && when.getMinutes() === 0 ? day : hour;
  }

  function stamp(at) {
    return new Date(at * 1000).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  }

  function draw(figure) {
    const old = drawn.get(figure);
    if (old) {
      old.destroy();
      drawn.delete(figure);
    }
    // A chart that is drawn has a table too: its legend, which is gone by now.
    const place = figure.querySelector(".chart-plot");
    const table = figure.querySelector("table");
    if (!place || !table || !table.tBodies.length || !table.tBodies[0].rows.length) {
      return;
    }
    const found = read(table);
    place.hidden = false;
    const width = Math.max(200, Math.floor(place.clientWidth));
    drawn.set(figure, new uPlot(options(figure, found, width), found.data, place));
  }

  function drawAll() {
    document.querySelectorAll("figure[data-chart]").forEach(draw);
  }

  let waiting = null;
  function later() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const [figure, plot] of drawn) {
        const width = Math.floor(figure.querySelector(".chart-plot").clientWidth);
        if (width >= 200 && width !== plot.width) {
          plot.setSize({ width, height: HEIGHT });
        }
      }
    });
  }

  drawAll();
  addEventListener("resize", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  new MutationObserver(drawAll).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
})();
