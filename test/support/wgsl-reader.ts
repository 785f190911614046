/** WGSL, read as far as its declarations: names with their types, and where the bodies of functions begin. */
export type Base = 'float' | 'integer' | 'bool';
/** A number, vector or matrix; or an array or pointer of `element`; or a struct. */
export interface Type {
  readonly base?: Base;
  readonly rows: number;
  readonly columns: number;
  readonly element?: Type;
  readonly fields?: ReadonlyMap<string, () => Type>;
}
export const number = (base: Base, rows = 1, columns = 1): Type => ({ base, rows, columns });
export const nothing = number('integer');
const scalars: Readonly<Record<string, Base>> = {
  f32: 'float',
  f16: 'float',
  u32: 'integer',
  i32: 'integer',
  bool: 'bool',
};
const suffixes: Readonly<Record<string, Base>> = { f: 'float', h: 'float', u: 'integer', i: 'integer' };
const tokens =
  /0x[\da-f]+u?|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?[fuih]?|[a-z_]\w*|<<=|>>=|->|[=!<>+*/%&|^-]=|&&|\|\||\+\+|--|<<|>>|\S/gi;

interface Variable {
  readonly type: () => Type;
  readonly constant?: boolean;
  /** How a storage binding is accessed; null for other variables. */
  readonly storage?: 'read' | 'read_write' | null;
}
export interface FunctionPiece {
  readonly name: string;
  readonly attributes: string;
  readonly parameters: readonly {
    readonly attributes: string;
    readonly text: string;
    readonly name: string;
    readonly type: () => Type;
  }[];
  readonly result: string;
  readonly body: number;
}

export abstract class Reader {
  protected at = 0;
  protected readonly types = new Map<string, () => Type>();
  protected readonly functions = new Map<string, () => Type>();
  /** Innermost last. */
  protected readonly scopes: Map<string, Variable>[] = [new Map()];
  /** Declarations as they are written, and functions. */
  protected readonly pieces: (string | FunctionPiece)[] = [];
  protected readonly tokens: readonly string[];

  constructor(source: string) {
    // A `>>` that closes two templates is no shift.
    const plain = source.replace(/\/\/.*$/gm, '').replace(/(<[^<>;(){}=]*<[^<>;(){}]*)>>/g, '$1> >');
    this.tokens = plain.match(tokens) ?? [];
    while (this.at < this.tokens.length) this.pieces.push(this.declaration());
  }

  /** The type of the expression that begins here. */
  protected abstract expressionType(): Type;

  elementBytes(binding: string): number {
    const { rows, columns } = this.scopes[0].get(binding)!.type().element!;
    return 4 * rows * columns;
  }

  /** Names of the storage bindings, in the order of `places_`. */
  storage(): string[] {
    return [...this.scopes[0]].flatMap(([name, variable]) => (variable.storage ? [name] : []));
  }

  /**
   * The kernel with one entry point. It adds its operations to `operations_` and marks elements in `marks_`, at three bindings from
   * `binding` on; the third, `places_`, says for each storage binding where its marks begin, and how many there are.
   *
   * Marks are no atomics, which would take a compiler long: threads that mark one element at a time write the same.
   */

  protected get next(): string {
    return this.tokens[this.at];
  }

  protected take(expected?: string): string {
    const token = this.tokens[this.at++];
    if (expected !== undefined && token !== expected) {
      const around = this.tokens.slice(Math.max(this.at - 12, 0), this.at + 4).join(' ');
      throw new Error(`instrument: '${token}' where '${expected}' was expected: ${around}`);
    }
    return token;
  }

  protected accept(...wanted: string[]): boolean {
    const found = wanted.includes(this.next);
    if (found) this.at += 1;
    return found;
  }

  /** From here to the first of `ends` outside of any brackets. */
  protected skipTo(...ends: string[]): string {
    const from = this.at;
    const [open, close] = ends.includes('}') && ends.length === 1 ? ['{', '}'] : ['<([{', '>)]}'];
    for (let depth = 0; depth > 0 || !ends.includes(this.next); this.at++)
      depth += open.includes(this.next) ? 1 : close.includes(this.next) ? -1 : 0;
    return this.tokens.slice(from, this.at).join(' ');
  }

  // ---- declarations

  protected declaration(): string | FunctionPiece {
    const from = this.at;
    while (this.accept('@')) if (this.take() !== 'compute') this.skipTo('@', 'fn', 'var');
    const attributes = this.tokens.slice(from, this.at).join(' ');
    const kind = this.take();
    if (kind === 'fn') return this.functionPiece(attributes);
    if (kind === 'var') {
      const [, space, , access] = this.tokens.slice(this.at); // < storage , read >
      const storage = space === 'storage' ? (access as 'read' | 'read_write') : null;
      this.take('<');
      this.skipTo('>');
      this.take();
      const name = this.take();
      this.take(':');
      this.scopes[0].set(name, { type: this.typeHere(), storage });
    } else if (kind === 'const') {
      const name = this.take();
      const type = this.take() === ':' ? this.typeHere() : this.later(() => this.expressionType());
      this.scopes[0].set(name, { type, constant: true });
    } else if (kind === 'alias') {
      const name = this.take();
      this.take('=');
      this.types.set(name, this.typeHere());
    } else if (kind === 'struct') {
      const name = this.take();
      const fields = new Map<string, () => Type>();
      this.take('{');
      while (!this.accept('}')) {
        while (this.accept('@')) this.at += 4; // builtin ( name )
        const field = this.take();
        this.take(':');
        fields.set(field, this.typeHere());
        this.skipTo(',', '}');
        this.accept(',');
      }
      this.types.set(name, () => ({ rows: 1, columns: 1, fields }));
      this.accept(';');
      return this.tokens.slice(from, this.at).join(' ');
    }
    this.skipTo(';');
    this.take();
    return this.tokens.slice(from, this.at).join(' ');
  }

  protected functionPiece(attributes: string): FunctionPiece {
    const name = this.take();
    const parameters: FunctionPiece['parameters'][number][] = [];
    this.take('(');
    while (!this.accept(')')) {
      const from = this.at;
      while (this.accept('@')) this.at += 4; // builtin ( name )
      const own = this.tokens.slice(from, this.at).join(' ');
      const parameter = this.take();
      this.take(':');
      const type = this.typeHere();
      parameters.push({ attributes: own, name: parameter, text: `${parameter}: ${this.skipTo(',', ')')}`, type });
      this.accept(',');
    }
    const returns = this.accept('->');
    this.functions.set(name, returns ? this.typeHere() : () => nothing);
    const result = returns ? `-> ${this.skipTo('{')}` : '';
    const body = this.at;
    this.take('{');
    this.skipTo('}');
    this.take();
    return { name, attributes, parameters, result, body };
  }

  protected isType(name: string): boolean {
    return name in scalars || /^(vec\d|mat\dx\d|array$)/.test(name) || this.types.has(name);
  }

  /** The type that begins here, read when it is asked for: aliases may follow. */
  protected typeHere(): () => Type {
    return this.later(() => this.type());
  }

  private later(read: () => Type): () => Type {
    const { at } = this;
    return () => {
      const here = this.at;
      this.at = at;
      const type = read();
      this.at = here;
      return type;
    };
  }

  protected type(): Type {
    const name = this.take();
    if (name in scalars) return number(scalars[name]);
    const known = this.types.get(name);
    if (known) return known();
    const [, kind, first, second, suffix] = /^(vec|mat|array|ptr|atomic)(\d)?(?:x(\d))?([fuih])?$/.exec(name) ?? [];
    if (kind === undefined) throw new Error(`instrument: no type '${name}'`);
    const [columns, rows] = kind === 'mat' ? [Number(first), Number(second)] : [1, Number(first)];
    if (suffix) return number(suffixes[suffix], rows, columns);
    this.take('<');
    if (kind === 'ptr') {
      this.skipTo(',');
      this.take();
    }
    const element = this.type();
    this.skipTo('>');
    this.take('>');
    return kind === 'vec' || kind === 'mat' ? number(element.base!, rows, columns) : { rows: 1, columns: 1, element };
  }
}

const resultTypes: Readonly<Record<string, Type>> = {
  unpack2x16float: number('float', 2),
  pack2x16float: nothing,
  arrayLength: nothing,
  any: number('bool'),
  all: number('bool'),
};

/** The type of a call of a function that is not declared. */
export function builtinType(
  name: string,
  [first, second]: readonly { readonly type: Type; readonly constant: boolean }[],
): Type {
  if (name in resultTypes) return resultTypes[name];
  if (name === 'dot') return number(first.type.base!);
  if (name === 'workgroupUniformLoad') return first.type.element!;
  if (name === 'transpose') return number('float', first.type.columns, first.type.rows);
  // A literal takes the type of what it meets.
  return first ? (first.constant && second ? second.type : first.type) : nothing;
}
