/** Counts decodes of action tokens. A decode is malformed if it ended before its chunk was complete; the rest of the chunk is zero. */
export interface DecodeCounts {
  readonly chunks: number;
  readonly malformed: number;
}

export class Decodes {
  private chunks = 0;
  private malformed = 0;

  /** Adds decodes, each true if it was complete. */
  add(complete: readonly boolean[]): void {
    this.chunks += complete.length;
    this.malformed += complete.filter((own) => !own).length;
  }

  /** The counts so far; null if no action tokens were decoded. */
  get counts(): DecodeCounts | null {
    const { chunks, malformed } = this;
    return chunks > 0 ? { chunks, malformed } : null;
  }
}

/** "malformed decodes 0 of 480 chunks" */
export const decodesText = ({ chunks, malformed }: DecodeCounts): string =>
  `malformed decodes ${malformed} of ${chunks} chunks`;
