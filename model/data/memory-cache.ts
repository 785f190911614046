/** A cache that makes values on request and drops the least recently used when they take more than `limit` bytes. */
export class MemoryCache<T> {
  /** In the order of their last use; a value that is still being made has no size. */
  readonly #entries = new Map<string | number, { readonly value: Promise<T>; size?: number }>();
  #bytes = 0;

  constructor(
    readonly limit: number,
    private readonly sizeOf: (value: T) => number,
  ) {}

  /** The bytes held now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Returns the value of `key`, made by `make` if it is not held; a failure is not held. */
  get(key: string | number, make: () => Promise<T>): Promise<T> {
    const held = this.#entries.get(key);
    const entry = held ?? { value: make() };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (!held)
      entry.value.then(
        (value) => this.#hold(entry, this.sizeOf(value)),
        () => this.#entries.delete(key),
      );
    return entry.value;
  }

  #hold(entry: { size?: number }, size: number): void {
    entry.size = size;
    this.#bytes += size;
    for (const [key, oldest] of this.#entries) {
      if (this.#bytes <= this.limit) break;
      if (oldest.size === undefined) continue;
      this.#entries.delete(key);
      this.#bytes -= oldest.size;
    }
  }
}
