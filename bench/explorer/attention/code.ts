/** The table as a program that uses the library. */
import { type Cell, cellAt, chosenBlocks, type State, sourceOf } from './state.ts';

const word = (name: string) => (/^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name) ? name : JSON.stringify(name));
const fields = (entries: readonly (readonly [string, string])[]) =>
  entries.length === 0 ? '{}' : `{ ${entries.map(([name, text]) => `${name}: ${text}`).join(', ')} }`;
const textOf = (value: unknown) => JSON.stringify(value).replaceAll(/([,:])(?=\S)/g, '$1 ');

function cellText(cell: Cell): string {
  if (typeof cell === 'string') return cell;
  const { mask, ...numbers } = cell;
  const given = Object.entries(numbers).flatMap(([name, own]) =>
    own === undefined ? [] : [[name, `${own}`] as const],
  );
  return `edge(${fields([['mask', `'${mask}'`], ...given])})`;
}

/** Statements that make this table, its expression, and call `attention` with both. */
export function codeOf(state: State): string {
  const { blocks, expression } = state;
  const { queries, lossBlocks } = chosenBlocks(blocks);
  const names = (own: readonly string[]) => `[${own.map((name) => `'${name}'`).join(', ')}]`;
  const withoutKeys = blocks.filter(({ rows }) => rows === 'queries').map(({ name }) => name);
  const lengths = fields(blocks.map(({ name, length }) => [word(name), String(length)]));
  const rows = blocks.flatMap(({ name }, q) => {
    const seen = blocks.flatMap((key, k) =>
      cellAt(state, q, k) === 'none' ? [] : [[word(key.name), cellText(cellAt(state, q, k))] as const],
    );
    return seen.length === 0 ? [] : [`  ${word(name)}: ${fields(seen)},`];
  });
  const source = sourceOf(
    expression,
    blocks.reduce((sum, { length }) => sum + length, 0),
  );
  const given = Object.entries(source ?? {}).map(
    ([name, value]) => `  ${name}: ${typeof value === 'string' ? `\`${value}\`` : textOf(value)},`,
  );
  const options = [
    'table',
    ...(source ? ['expression'] : []),
    ...(queries.length < blocks.length ? [`queries: ${names(queries)}`] : []),
    ...(lossBlocks.length < queries.length ? [`lossBlocks: ${names(lossBlocks)}`] : []),
  ];
  const body = [
    `const layout = sequence(${lengths}${withoutKeys.length > 0 ? `, { withoutKeys: ${names(withoutKeys)} }` : ''});`,
    'const table = attentionTable(layout, {',
    ...rows,
    '});',
    ...(source ? ['const expression = await attentionExpression(device, layout, {', ...given, '});'] : []),
    `const output = attention(query, key, value, { ${options.join(', ')} });`,
  ];
  const code = body.join('\n');
  const edges = ['causal', 'full', 'insulated'].filter((name) => rows.some((row) => row.includes(`: ${name}`)));
  const functions = ['attention', 'attentionExpression', 'attentionTable', 'edge', 'sequence'];
  const imports = [...edges, ...functions.filter((name) => code.includes(`${name}(`))].sort();
  return `import { ${imports.join(', ')} } from 'insula/kernels';\n\n${code}\n`;
}
