/** A cache that makes values on request and drops the least recently used when they take more than `limit` bytes. */
export class MemoryCache<T> {
  readonly #values = new Map<string | number, Promise<T>>();
  readonly #sizes = new Map<string | number, number>();
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
    const held = this.#values.get(key);
    const value = held ?? make();
    this.#values.delete(key);
    this.#values.set(key, value);
    if (!held) {
      value.then(
        (made) => this.#hold(key, this.sizeOf(made)),
        () => this.#values.delete(key),
      );
    }
    return value;
  }

  #hold(key: string | number, size: number): void {
    this.#sizes.set(key, size);
    this.#bytes += size;
    for (const oldest of this.#values.keys()) {
      if (this.#bytes <= this.limit) break;
      const freed = this.#sizes.get(oldest);
      if (freed === undefined) continue; // still being made
      this.#values.delete(oldest);
      this.#sizes.delete(oldest);
      this.#bytes -= freed;
    }
  }
}
