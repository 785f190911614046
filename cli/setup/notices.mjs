// Dawn writes two lines about limits to standard error whenever an adapter opens. They mean nothing to a user.

const begins = 'Warning: maxDynamic';
const notice = /^Warning: maxDynamic\w+ artificially reduced from \d+ to \d+ [\w ]+\.\r?\n$/;

/**
 * Takes Dawn's notices out of a stream of text and passes everything else on at once, except the beginning of a line
 * that may still become a notice.
 * @param {(text: string) => void} forward
 * @returns {{ write: (text: string) => void, end: () => void }}
 */
export function withoutNotices(forward) {
  /** The beginning of a line that may become a notice. */
  let held = '';
  /** Whether the beginning of the line under way was passed on. */
  let passing = false;
  return {
    write(text) {
      const lines = (held + text).match(/[^\n]*\n|[^\n]+$/g) ?? [];
      held = '';
      let passed = '';
      for (const line of lines) {
        const complete = line.endsWith('\n');
        if (passing) passed += line;
        else if (!complete && mayBecomeNotice(line)) held = line;
        else if (!notice.test(line)) passed += line;
        passing = !complete && held === '';
      }
      if (passed) forward(passed);
    },
    end() {
      if (held) forward(held);
      held = '';
    },
  };
}

/** @param {string} line */
const mayBecomeNotice = (line) => (line.length < begins.length ? begins.startsWith(line) : line.startsWith(begins));
