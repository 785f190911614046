/**
 * Kernels that count what they do: WGSL in, WGSL out.
 *
 * The text is parsed as far as needed to know the type of every expression. Before each statement the arithmetic operations of its
 * expressions are added to a counter of the thread, so that only what really executes is counted: +, -, *, / and the functions below on
 * floats, by components, two for a fused multiply-add. Comparisons, selections, conversions and integers (addresses, bits) count
 * nothing. Every access of a storage binding marks its element as read (unless this dispatch had written it) or written.
 */
import { builtinType, type FunctionPiece, number, Reader, type Type } from './wgsl-reader.ts';

interface Expression {
  readonly text: string;
  readonly type: Type;
  readonly operations: number;
  readonly constant: boolean;
}
/** Operations for each component of the result; of dot, of an operand. */
const functionCost: Readonly<Record<string, number>> = {
  ...Object.fromEntries(
    ['exp', 'log', 'sqrt', 'inverseSqrt', 'tanh', 'max', 'min', 'subgroupAdd'].map((name) => [name, 1]),
  ),
  ...{ clamp: 2, fma: 2, dot: 2, mix: 3 },
};
const precedence = ['||', '&&', '|', '^', '&', '== !=', '< > <= >=', '<< >>', '+ -', '* / %'].map((all) =>
  all.split(' '),
);
const empty = { text: '', operations: 0 };

export class Instrumenter extends Reader {
  /** How the storage element that is parsed next is accessed. */
  private access: 'load' | 'store' | 'update' = 'load';

  /** `integers`: their operations count too, for kernels whose work they are. */
  constructor(
    source: string,
    private readonly integers = false,
  ) {
    super(source);
  }

  protected override expressionType(): Type {
    return this.expression().type;
  }

  /**
   * The kernel with one entry point. It adds its operations to `operations_` and marks elements in `marks_`, at three bindings from
   * `binding` on; the third, `places_`, says for each storage binding where its marks begin, and how many there are.
   *
   * Marks are no atomics, which would take a compiler long: threads that mark one element at a time write the same.
   */
  text(entry: string, binding: number): string {
    const written = this.pieces.flatMap((piece) => {
      if (typeof piece === 'string') return [piece];
      return piece.attributes && piece.name !== entry ? [] : [this.functionText(piece)];
    });
    const directives = written.filter((piece) => /^(enable|diagnostic) /.test(piece));
    const names = this.storage();
    const marks = names.flatMap((name, k) => {
      const readOnly = this.scopes[0].get(name)!.storage === 'read';
      const read = readOnly ? 'marks_[mark] = 1u;' : 'marks_[mark] |= 1u - (marks_[mark] >> 1u);'; // read, unless it was written
      const write = 'marks_[mark] |= 2u;';
      return Object.entries({ load: read, store: write, update: `${read} ${write}` }).map(
        ([access, body]) =>
          `fn ${access}_${name}(at: u32) -> u32 { let mark = places_[${k}].x + min(at, places_[${k}].y); ${body} return at; }`,
      );
    });
    return [
      ...directives,
      `@group(0) @binding(${binding}) var<storage, read_write> operations_: atomic<u32>;`,
      `@group(0) @binding(${binding + 1}) var<storage, read_write> marks_: array<u32>;`,
      `@group(0) @binding(${binding + 2}) var<uniform> places_: array<vec4u, ${names.length}>;`,
      'var<private> counter_: u32;',
      ...marks,
      ...written.filter((piece) => !directives.includes(piece)),
    ].join('\n');
  }

  private functionText({ name, attributes, parameters, result, body }: FunctionPiece): string {
    this.at = body;
    this.scopes.push(new Map(parameters.map((parameter) => [parameter.name, parameter])));
    const text = this.block();
    this.scopes.pop();
    const plain = `(${parameters.map((parameter) => parameter.text).join(', ')}) ${result} ${text}`;
    if (!attributes) return `fn ${name} ${plain}`;
    const full = parameters.map((parameter) => `${parameter.attributes} ${parameter.text}`).join(', ');
    const call = `${name}_(${parameters.map((parameter) => parameter.name).join(', ')});`;
    return `fn ${name}_ ${plain}\n${attributes} fn ${name} (${full}) { ${call} atomicAdd(&operations_, counter_); }`;
  }

  // ---- statements

  private block(): string {
    this.scopes.push(new Map());
    this.take('{');
    const written: string[] = [];
    while (!this.accept('}')) written.push(this.statement());
    this.scopes.pop();
    return `{ ${written.join('\n')} }`;
  }

  private statement(): string {
    if (this.next === '{') return this.block();
    const kind = this.next;
    if (kind === 'if' || kind === 'while') {
      this.take();
      const condition = this.expression();
      const body = this.block();
      if (kind === 'while') return `while ${condition.text} { ${counted(condition)} ${body} }`;
      const other = this.accept('else') ? `else { ${this.statement()} }` : '';
      return `${counted(condition)} if ${condition.text} ${body} ${other}`;
    }
    if (kind === 'for') return this.forLoop();
    const { text, operations } = this.simple();
    this.take(';');
    return `${counted({ operations })} ${text}${text.endsWith('}') ? '' : ';'}`;
  }

  private forLoop(): string {
    this.take();
    this.take('(');
    this.scopes.push(new Map());
    const start = this.next === ';' ? empty : this.simple();
    this.take(';');
    const condition = this.next === ';' ? empty : this.expression();
    this.take(';');
    const update = this.next === ')' ? empty : this.simple();
    this.take(')');
    const each = counted({ operations: condition.operations + update.operations });
    const body = this.block();
    this.scopes.pop();
    return `${counted(start)} for (${start.text}; ${condition.text}; ${update.text}) { ${each} ${body} }`;
  }

  /** A statement without its semicolon. */
  private simple(): { text: string; operations: number } {
    if (this.accept('break', 'continue', 'discard')) return { text: this.tokens[this.at - 1], operations: 0 };
    if (this.accept('return')) {
      if (this.next === ';') return { text: 'return', operations: 0 };
      const { text, operations } = this.expression();
      return { text: `return ${text}`, operations };
    }
    if (this.accept('let', 'var', 'const')) {
      const kind = this.tokens[this.at - 1];
      const { text, operations } = this.local(kind === 'const');
      return { text: `${kind} ${text}`, operations };
    }
    // The target of an assignment is parsed twice: the sign behind it decides how.
    const { at } = this;
    this.expression();
    const sign = this.next;
    if (!/^([-+*/%&|^]|<<|>>)?=$|^(\+\+|--)$/.test(sign)) {
      this.at = at;
      return this.expression();
    }
    this.at = at;
    this.access = sign === '=' ? 'store' : 'update';
    const target = this.expression();
    this.access = 'load';
    this.take(sign);
    if (sign === '++' || sign === '--') return { text: `${target.text}${sign}`, operations: 0 };
    const value = this.expression();
    const { operations } = this.arithmetic(sign === '=' ? ',' : sign[0], target, value);
    // The element would be marked as written before what is assigned to it is read.
    if (sign === '=' && /\bstore_/.test(target.text))
      return { text: `{ let value_ = ${value.text}; ${target.text} = value_; }`, operations };
    return { text: `${target.text} ${sign} ${value.text}`, operations };
  }

  private local(constant: boolean): { text: string; operations: number } {
    const name = this.take();
    const declared = this.accept(':') ? this.typeHere() : null;
    const written = declared ? `${name}: ${this.skipTo('=', ';')}` : name;
    const value = this.accept('=') ? this.expression() : null;
    const type = declared ?? (() => value!.type);
    this.scopes.at(-1)!.set(name, { type, constant });
    return { text: value ? `${written} = ${value.text}` : written, operations: value?.operations ?? 0 };
  }

  // ---- expressions

  private expression(level = 0): Expression {
    if (level === precedence.length) return this.unary();
    let left = this.expression(level + 1);
    while (precedence[level].includes(this.next)) {
      const sign = this.take();
      left = this.arithmetic(sign, left, this.expression(level + 1));
    }
    return left;
  }

  private unary(): Expression {
    const sign = this.next;
    if (!this.accept('-', '!', '~', '&', '*')) return this.postfix(this.primary());
    const of = this.unary();
    const type = sign === '&' ? { rows: 1, columns: 1, element: of.type } : sign === '*' ? of.type.element! : of.type;
    return { ...of, text: `${sign}${of.text}`, type };
  }

  private primary(): Expression {
    const token = this.next;
    if (this.accept('(')) {
      const inner = this.expression();
      this.take(')');
      return { ...inner, text: `(${inner.text})` };
    }
    if (/^[\d.]/.test(token)) {
      const float = !token.startsWith('0x') && /[.efh]/.test(token);
      return { text: this.take(), type: number(float ? 'float' : 'integer'), operations: 0, constant: true };
    }
    if (this.accept('true', 'false')) return { text: token, type: number('bool'), operations: 0, constant: true };
    const variable = this.scopes.findLast((scope) => scope.has(token))?.get(token);
    if (!variable) return this.call();
    this.take();
    const made = { text: token, type: variable.type(), operations: 0, constant: variable.constant === true };
    if (!variable.storage || this.next !== '[') return made;
    const { access } = this;
    this.access = 'load';
    this.take('[');
    const index = this.expression();
    this.take(']');
    return {
      ...made,
      text: `${token}[${access}_${token}(${index.text})]`,
      type: made.type.element!,
      operations: index.operations,
    };
  }

  private call(): Expression {
    const from = this.at;
    const cast = this.accept('bitcast');
    if (cast) this.take('<');
    const type = cast || this.isType(this.next) ? this.type() : null;
    if (cast) this.take('>');
    const name = type ? this.tokens.slice(from, this.at).join(' ') : this.take();
    this.take('(');
    const given: Expression[] = [];
    while (!this.accept(')')) {
      given.push(this.expression());
      this.accept(',');
    }
    const result = type ?? this.functions.get(name)?.() ?? builtinType(name, given);
    const constant = given.every((argument) => argument.constant) && !this.functions.has(name);
    const each = this.functions.has(name) || result.base !== 'float' || constant ? 0 : (functionCost[name] ?? 0);
    const own = each * (name === 'dot' ? given[0].type : result).rows;
    const operations = own + given.reduce((sum, argument) => sum + argument.operations, 0);
    return { text: `${name}(${given.map(({ text }) => text).join(', ')})`, type: result, operations, constant };
  }

  private postfix(start: Expression): Expression {
    let of = start;
    for (;;) {
      if (this.accept('.')) {
        const name = this.take();
        const field = of.type.fields?.get(name)?.();
        of = { ...of, text: `${of.text}.${name}`, type: field ?? number(of.type.base!, name.length) };
      } else if (this.accept('[')) {
        const { access } = this;
        this.access = 'load';
        const index = this.expression();
        this.access = access;
        this.take(']');
        const { base, rows, columns, element } = of.type;
        const type = element ?? number(base!, columns > 1 ? rows : 1);
        of = { ...of, text: `${of.text}[${index.text}]`, type, operations: of.operations + index.operations };
      } else return of;
    }
  }

  private arithmetic(sign: string, left: Expression, right: Expression): Expression {
    const operations = left.operations + right.operations;
    const constant = left.constant && right.constant;
    const made = { text: `${left.text} ${sign} ${right.text}`, operations, constant };
    const [a, b] = [left.type, right.type];
    const wider = a.rows * a.columns >= b.rows * b.columns ? a : b;
    if (/^([=!]=|[<>]=?|&&|\|\|)$/.test(sign)) return { ...made, type: number('bool', wider.rows) };
    const float = a.base === 'float' || b.base === 'float';
    const base = float ? 'float' : wider.base!;
    const counts = (float ? '+-*/' : this.integers ? '+-*/%&|^<<>>' : '').includes(sign) && !constant;
    const product =
      sign === '*' && (a.columns > 1 || b.columns > 1) && a.rows * a.columns > 1 && b.rows * b.columns > 1;
    if (!product) {
      const own = counts ? wider.rows * wider.columns : 0;
      return { ...made, operations: operations + own, type: number(base, wider.rows, wider.columns) };
    }
    // A matrix by a matrix or a vector; a vector to the left lies down.
    const [rows, columns] = [a.columns > 1 ? a.rows : 1, b.columns];
    const depth = a.columns > 1 ? a.columns : a.rows;
    const type = rows === 1 ? number(base, columns) : number(base, rows, columns);
    return { ...made, operations: operations + 2 * rows * columns * depth, type };
  }
}

function counted({ operations }: { operations: number }): string {
  return operations > 0 ? `counter_ += ${operations}u;` : '';
}
