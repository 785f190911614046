/**
 * Runs command lines of `insula` one after the other in this process, where a process for each would cost a second or two. The argument
 * is their JSON; the output is that of what each wrote, and of the status that it ends with.
 */
export {};

const write = process.stdout.write.bind(process.stdout);
for (const stream of [process, process.stdout, process.stderr]) stream.setMaxListeners(0); // each line adds its own
const results: unknown[] = [];
for (const [index, words] of (JSON.parse(process.argv[2]) as string[][]).entries()) {
  const written = { output: '', errors: '' };
  const into = (name: keyof typeof written) => (text: string, done?: () => void) => {
    written[name] += text;
    done?.();
    return true;
  };
  Object.assign(process.stdout, { write: into('output') });
  Object.assign(process.stderr, { write: into('errors') });
  Object.assign(process, { argv: [...process.argv.slice(0, 2), ...words] });
  const ended = new Promise<number>((exit) => Object.assign(process, { exit }));
  await import(`../../cli/main.ts?line=${index}`);
  results.push({ status: await ended, ...written });
}
write(JSON.stringify(results));
