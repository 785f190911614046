/**
 * Attention as a table: rows are query blocks, columns key blocks, a cell says what a query sees of a key block and whether
 * gradient passes through that edge. What is missing in a row is `none`.
 */

export interface Block {
  readonly name: string;
  readonly start: number;
  readonly length: number;
  /** Whether it has keys and values; otherwise it has queries only, and nothing attends to it. */
  readonly keys: boolean;
}

/** The blocks of a token sequence, in order and without gaps. */
export interface Sequence {
  readonly blocks: readonly Block[];
  readonly length: number;
  /** Tokens of the blocks with keys: the rows of key and value, in the order of the sequence. */
  readonly keyTokens: number;
}

/**
 * Blocks in order, from [name, length] pairs or a record. Names are unique; lengths are integers from 0. The blocks
 * that `withoutKeys` names have queries only, as in cross-attention: key and value have no rows of theirs.
 */
export function sequence(
  parts: readonly (readonly [string, number])[] | Readonly<Record<string, number>>,
  { withoutKeys = [] }: { readonly withoutKeys?: readonly string[] } = {},
): Sequence {
  const pairs = Array.isArray(parts) ? (parts as readonly (readonly [string, number])[]) : Object.entries(parts);
  const blocks: Block[] = [];
  let start = 0;
  for (const [name, length] of pairs) {
    if (!Number.isInteger(length) || length < 0)
      throw new Error(`sequence: block '${name}' has length ${length}; expected an integer from 0`);
    if (blocks.some((block) => block.name === name)) throw new Error(`sequence: two blocks are named '${name}'`);
    blocks.push({ name, start, length, keys: !withoutKeys.includes(name) });
    start += length;
  }
  for (const name of withoutKeys)
    if (!blocks.some((block) => block.name === name))
      throw new Error(`sequence: withoutKeys names '${name}'; the blocks are ${pairs.map(([own]) => own).join(', ')}`);
  const keyTokens = blocks.reduce((sum, { length, keys }) => sum + (keys ? length : 0), 0);
  return { blocks, length: start, keyTokens };
}

/** The part of a key block that a query block sees. */
export interface Edge {
  readonly mask: 'none' | 'full' | 'causal';
  /** For causal edges: a query sees keys at most `window` - 1 positions back. */
  readonly window?: number;
  /**
   * The factors, from 0 to 1, of the gradient that passes through this edge into its keys, and into its values: 0 is a stop-gradient.
   * With factor s it is the gradient of s K + (1 - s) stopGradient(K).
   */
  readonly keyGradient: number;
  readonly valueGradient: number;
}

export interface EdgeOptions {
  mask: 'full' | 'causal';
  window?: number;
  /** A stop is a factor of 0. */
  stopKey?: boolean;
  stopValue?: boolean;
  keyGradient?: number;
  valueGradient?: number;
}

export function edge({ mask, window, stopKey, stopValue, keyGradient, valueGradient }: EdgeOptions): Edge {
  if (window !== undefined && (mask !== 'causal' || !Number.isInteger(window) || window < 1))
    throw new Error(`edge: window ${window} on a ${mask} edge; a window is an integer from 1 on a causal edge`);
  return {
    ...{ mask, window },
    keyGradient: factorOf('Key', stopKey, keyGradient),
    valueGradient: factorOf('Value', stopValue, valueGradient),
  };
}

function factorOf(side: 'Key' | 'Value', stop = false, factor?: number): number {
  const name = `${side.toLowerCase()}Gradient`;
  if (stop && factor !== undefined)
    throw new Error(`edge: stop${side} and ${name} ${factor} together; a stop is a ${name} of 0: give one of them`);
  const given = factor ?? (stop ? 0 : 1);
  if (!isFactor(given)) throw new Error(`edge: ${name} is ${given}; expected a number from 0 to 1`);
  return given;
}

function isFactor(value: number): boolean {
  return value >= 0 && value <= 1;
}

export const none: Edge = { mask: 'none', keyGradient: 1, valueGradient: 1 };
export const full: Edge = edge({ mask: 'full' });
/** Position i sees positions j <= i of its own block. */
export const causal: Edge = edge({ mask: 'causal' });
/** Full, with keys and values behind a stop-gradient: knowledge insulation. */
export const insulated: Edge = edge({ mask: 'full', stopKey: true, stopValue: true });

export interface AttentionTable {
  readonly layout: Sequence;
  /** [query block][key block], in layout order. */
  readonly cells: readonly (readonly Edge[])[];
}

/**
 * The table of a layout. Unknown block names, edges to blocks without keys, and causal edges between different blocks
 * are errors.
 */
export function attentionTable(
  layout: Sequence,
  rows: Readonly<Record<string, Readonly<Record<string, Edge>>>>,
): AttentionTable {
  const names = layout.blocks.map((block) => block.name);
  const check = (name: string) => {
    if (!names.includes(name))
      throw new Error(`attentionTable: no block '${name}' in the layout; it has ${names.join(', ')}`);
  };
  for (const [queryName, row] of Object.entries(rows)) {
    check(queryName);
    for (const [keyName, cell] of Object.entries(row)) {
      check(keyName);
      if (cell.mask !== 'none' && !layout.blocks[names.indexOf(keyName)].keys)
        throw new Error(
          `attentionTable: '${queryName}' reads '${keyName}', which has no keys; leave it out of withoutKeys, or leave out the edge`,
        );
      if (cell.mask === 'causal' && queryName !== keyName)
        throw new Error(
          `attentionTable: '${queryName}' reads '${keyName}' by a causal edge; causal is for a block and itself`,
        );
      for (const factor of ['keyGradient', 'valueGradient'] as const)
        if (!isFactor(cell[factor]))
          throw new Error(
            `attentionTable: '${queryName}' reads '${keyName}' with a ${factor} of ${cell[factor]}; expected a number from 0 to 1`,
          );
    }
  }
  return { layout, cells: names.map((queryName) => names.map((keyName) => rows[queryName]?.[keyName] ?? none)) };
}
