// Draws the charts of the page from its JSON. Colours are CSS variables: see page.css.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const FONT = "system-ui, sans-serif";
  const COLOURS = 8;
  const SYMBOLS = ["circle", "triangle", "rect", "diamond", "emptyCircle", "emptyTriangle", "emptyRect", "pin"];
  const DASHES = ["solid", "dashed", "dotted", [8, 3, 2, 3], [12, 4], [2, 6], [6, 2], [10, 3, 2, 3, 2, 3]];
  // About so many points of a line have its symbol on them.
  const MARKED = 8;
  // Pixels: a row of the legend, and what an item takes beside its words; a chart without a legend; the width that
  // page.css gives it in print.
  const ROW = 24;
  const ITEM = 32 + 5 + 10;
  const HEIGHT = 290;
  const PRINTED = 642;

  const SMALL = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const LARGE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const written = (value) => (value == null ? "–" : (Math.abs(value) < 1000 ? SMALL : LARGE).format(value));
  const short = (value) => (Math.abs(value) < 10000 ? written(value) : SHORT.format(value));
  // The percentile at 1 ÷ (1 − q), with a digit more than it has nines: 50, 99, 99.9.
  const percentile = (x) => String(Number((100 * (1 - 1 / x)).toFixed(Math.max(1, Math.ceil(Math.log10(x)) - 1))));
  const percent = (share) => `${share > 0 ? "+" : ""}${written(100 * share)} %`;
  const colour = (look) => (look < 0 ? "var(--faint)" : `var(--c${look % COLOURS})`);
  const style = (look) => (look < 0 ? "dotted" : DASHES[look % DASHES.length]);
  const symbol = (look) => (look < 0 ? "rect" : SYMBOLS[look % SYMBOLS.length]);

  const values = (lines, at) => lines.flatMap((line) => line.points.map((point) => point[at])).filter((v) => v != null);

  // What all axes have in common.
  const axis = (more) => ({
    nameLocation: "middle",
    nameGap: 28,
    nameTextStyle: { color: "var(--faint)" },
    axisLabel: { color: "var(--faint)", hideOverlap: true },
    axisLine: { lineStyle: { color: "var(--faint)" } },
    axisTick: { lineStyle: { color: "var(--faint)" } },
    splitLine: { lineStyle: { color: "var(--rule)" } },
    ...more,
    ...(more.axisLabel && { axisLabel: { color: "var(--faint)", hideOverlap: true, ...more.axisLabel } }),
    ...(more.axisTick && { axisTick: { lineStyle: { color: "var(--faint)" }, ...more.axisTick } }),
  });

  function across({ axis: kind, x, lines }) {
    const name = { name: x };
    if (kind === "names") return axis({ ...name, type: "category", data: [...new Set(values(lines, 0))] });
    const most = Math.max(...values(lines, 0));
    if (kind === "seconds") return axis({ ...name, type: "value", min: 0, max: most < 1 ? most : Math.ceil(most) });
    if (kind === "percentiles") {
      const ticks = [2];
      for (let tick = 10; tick < most / 5; tick *= 10) ticks.push(tick);
      ticks.push(most);
      return axis({
        ...name, type: "log", min: 1, max: Math.max(most, 10), splitLine: { show: false },
        axisLabel: { customValues: ticks, formatter: (value) => (value >= most ? "max" : percentile(value)) },
        axisTick: { customValues: ticks },
        axisPointer: { label: { formatter: ({ value }) => (value >= most ? "max" : `p${percentile(value)}`) } },
      });
    }
    const ticks = [...new Set(values(lines, 0))].sort((a, b) => a - b);
    return axis({
      ...name, type: "log", min: ticks[0], max: most, splitLine: { show: false },
      axisLabel: { customValues: ticks, formatter: short }, axisTick: { customValues: ticks },
    });
  }

  function upwards({ lines, log }) {
    if (!log) return axis({ type: "value", min: 0, axisLabel: { formatter: short } });
    const found = values(lines, 1);
    const [least, most] = [Math.min(...found), Math.max(...found)];
    const steps = [];
    for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power += 1) {
      steps.push(...[1, 2, 5].map((factor) => Number((factor * 10 ** power).toPrecision(1))));
    }
    steps.push(10 * steps.at(-3));
    const first = steps.findLastIndex((step) => step <= least);
    const ticks = steps.slice(first, steps.findIndex((step) => step >= most) + 1);
    return axis({
      type: "log", min: ticks[0], max: ticks.at(-1),
      axisLabel: { customValues: ticks, formatter: short }, axisTick: { customValues: ticks },
    });
  }

  const marked = ([x, words], later) => ({
    symbol: "none", silent: true, data: [{ xAxis: x }],
    lineStyle: { color: "var(--ink)", type: "dashed", width: 1.5 },
    label: {
      show: words !== "", formatter: words, color: "var(--ink)", position: "end", distance: 8,
      align: later ? "right" : "left",
    },
  });

  function marks(points) {
    const apart = Math.ceil(points.length / MARKED);
    return points.map((value, place) => (place % apart === apart >> 1 ? value : { value, symbol: "none" }));
  }

  // What came in a second is a level, not a point: it is drawn over all of it.
  const level = (points) => [{ value: [0, points[0][1]], symbol: "none" }, ...marks(points)];

  function data({ axis: kind }, { dots, points }) {
    if (kind === "seconds") return { data: level(points), step: "start" };
    return { data: dots ? points : marks(points) };
  }

  const series = (chart) => (line, place) => ({
    name: line.name,
    type: line.dots ? "scatter" : "line",
    ...data(chart, line),
    color: colour(line.look),
    lineStyle: { color: colour(line.look), type: chart.stacked ? "solid" : style(line.look), width: 2 },
    symbol: symbol(line.look),
    symbolSize: line.dots ? 9 : 7,
    showSymbol: !chart.stacked && line.look >= 0,
    showAllSymbol: true,
    emphasis: { disabled: true },
    ...(chart.stacked && { stack: "all", areaStyle: { color: colour(line.look), opacity: 0.75 } }),
    ...(place === 0 && chart.mark && { markLine: marked(chart.mark, later(chart)) }),
  });

  // Whether a mark stands in the second half of the axis: its words then go to the left.
  const later = ({ mark, lines }) => {
    const places = values(lines, 0);
    return mark[0] ** 2 > Math.min(...places) * Math.max(...places);
  };

  const VERDICTS = { faster: ["triangle", 0], slower: ["triangle", 180] };

  // Relative changes: a row for each figure, a line through its interval, 0 in the middle.
  function changes(chart, legend) {
    const rows = [...new Set(values(chart.lines, 1))];
    return {
      ...legend,
      xAxis: axis({ name: chart.x, type: "value", axisLabel: { formatter: percent } }),
      yAxis: axis({
        type: "category", data: rows, inverse: true, splitLine: { show: true, lineStyle: { color: "var(--rule)" } },
      }),
      tooltip: { show: false },
      series: chart.lines.map((line, place) => ({
        name: line.name,
        type: line.dots ? "scatter" : "line",
        data: line.points,
        color: colour(line.look),
        lineStyle: { color: colour(line.look), width: 3 },
        symbol: line.look < 0 ? "rect" : (VERDICTS[line.name] ?? ["circle"])[0],
        symbolRotate: VERDICTS[line.name]?.[1],
        symbolSize: line.look < 0 ? [3, 22] : 14,
        showSymbol: false,
        emphasis: { disabled: true },
        z: line.dots ? 4 : 3,
        ...(place === 0 && { markLine: marked([0, ""]) }),
      })),
    };
  }

  const named = ({ lines }) => [...new Set(lines.map((line) => line.name))];

  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${FONT}`;

  // The height of the legend, which wraps.
  function above(chart, width) {
    const names = named(chart);
    if (names.length < 2 && !chart.stacked && chart.axis !== "changes") return 0;
    let rows = 1;
    let filled = 0;
    for (const name of names) {
      const item = ITEM + Math.ceil(pen.measureText(name).width);
      if (filled && filled + item > width) {
        rows += 1;
        filled = 0;
      }
      filled += item;
    }
    return ROW * rows;
  }

  function option(chart, width) {
    const top = above(chart, width);
    const frame = {
      animation: false,
      textStyle: { color: "var(--ink)", fontFamily: FONT },
      aria: { enabled: true, label: { enabled: false }, decal: { show: chart.stacked } },
      legend: {
        show: top > 0, top: 0, left: 0, data: named(chart), ...(chart.stacked && { icon: "rect" }),
        textStyle: { color: "var(--ink)" }, itemWidth: 32, itemGap: 10, inactiveColor: "var(--rule)",
      },
      grid: { left: 12, right: 24, top: top + 26, bottom: 34, containLabel: true },
    };
    if (chart.axis === "changes") return changes(chart, frame);
    return {
      ...frame,
      tooltip: {
        trigger: "axis", confine: true, valueFormatter: written,
        backgroundColor: "var(--card)", borderColor: "var(--rule)", textStyle: { color: "var(--ink)" },
        axisPointer: { lineStyle: { color: "var(--faint)" } },
      },
      xAxis: across(chart), yAxis: upwards(chart), series: chart.lines.map(series(chart)),
    };
  }

  const drawn = new Map();

  function draw(place, width = place.clientWidth) {
    const chart = charts[place.dataset.chart];
    const height = HEIGHT + above(chart, width);
    place.style.height = `${height}px`;
    if (!drawn.has(place)) drawn.set(place, echarts.init(place, null, { renderer: "svg", width, height }));
    drawn.get(place).resize({ width, height });
    drawn.get(place).setOption(option(chart, width), { notMerge: true });
  }

  const folded = (place) => place.closest("details:not([open])") !== null;
  const places = [...document.querySelectorAll(".chart")];
  const update = (width) => places.filter((place) => !folded(place)).forEach((place) => draw(place, width));

  update();
  addEventListener("resize", () => update());
  for (const part of document.querySelectorAll("details.part")) {
    part.addEventListener("toggle", () => part.open && part.querySelectorAll(".chart").forEach((place) => draw(place)));
  }
  addEventListener("beforeprint", () => update(PRINTED));
  addEventListener("afterprint", () => update());
})();
