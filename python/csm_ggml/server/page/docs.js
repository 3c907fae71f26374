"use strict";

// Shows /openapi.json: each endpoint, and the fields that it takes.

function add(parent, kind, text) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function kindOf(field) {
  if (field.enum) return field.enum.join(", ");
  if (field.anyOf) return field.anyOf.map(kindOf).filter((kind) => kind !== "null").join(" or ");
  if (field.$ref) return field.$ref.split("/").pop();
  if (field.type === "array") return `list of ${kindOf(field.items || {})}`;
  return field.type || "any";
}

function limits(field) {
  const one = (field.anyOf && field.anyOf[0]) || field;
  const names = { minimum: "at least", exclusiveMinimum: "above", maximum: "at most",
    exclusiveMaximum: "below", maxLength: "characters at most" };
  return Object.entries(names).filter(([name]) => name in one)
    .map(([name, words]) => `${words} ${one[name]}`).join(", ");
}

function show(api) {
  const main = document.getElementById("endpoints");
  main.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      const section = add(main, "section");
      add(section, "h2", `${method.toUpperCase()} ${path}`);
      add(section, "p", described.summary || "");
      const content = Object.entries((described.requestBody || {}).content || {})[0];
      if (!content) continue;
      let { schema } = content[1];
      if (schema.$ref) schema = api.components.schemas[schema.$ref.split("/").pop()];
      const table = add(section, "table");
      const head = add(add(table, "thead"), "tr");
      for (const title of ["Field", "Values", ""]) add(head, "th", title).scope = "col";
      const rows = add(table, "tbody");
      for (const [name, field] of Object.entries(schema.properties || {})) {
        const row = add(rows, "tr");
        const needed = (schema.required || []).includes(name) ? " (required)" : "";
        add(row, "td", name + needed);
        add(row, "td", [kindOf(field), limits(field)].filter(Boolean).join("; "));
        add(row, "td", field.description || "");
      }
    }
  }
}

fetch("openapi.json").then((answer) => answer.json()).then(show);
