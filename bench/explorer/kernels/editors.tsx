/** Two views of one kernel file, side by side: what is typed in one shows in the other. */
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { bracketMatching, HighlightStyle, syntaxHighlighting } from '@codemirror/language';
import { lintGutter, setDiagnostics } from '@codemirror/lint';
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search';
import { Annotation, EditorState } from '@codemirror/state';
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from '@codemirror/view';
import { wgsl } from '@iizukak/codemirror-lang-wgsl';
import { tags } from '@lezer/highlight';
import { useEffect, useRef } from 'preact/hooks';
import { Choice } from '../parts.tsx';
import { type Fault, sentenceOf } from './edit.ts';

/** The head comment of a file, beside its entry points. */
export const HEAD = 'head comment';

const fromOtherView = Annotation.define<boolean>();
/** After so long without a key the text is what the user wants tried. */
const PAUSE = 400;

const colours = HighlightStyle.define([
  { tag: tags.comment, color: 'var(--muted)' },
  { tag: tags.keyword, color: 'var(--line4)' },
  { tag: tags.typeName, color: 'var(--line1)' },
  { tag: tags.number, color: 'var(--line2)' },
  { tag: tags.attributeName, color: 'var(--line6)' },
]);

const look = EditorView.theme({
  '&': { height: '100%', fontSize: '0.78rem', backgroundColor: 'var(--band)', color: 'var(--ink)' },
  '.cm-scroller': { fontFamily: 'ui-monospace, SFMono-Regular, Menlo, Consolas, monospace', lineHeight: '1.5' },
  '.cm-gutters': { backgroundColor: 'var(--band)', color: 'var(--muted)', borderRight: '1px solid var(--rule)' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'color-mix(in oklab, var(--grid) 60%, transparent)' },
  '.cm-cursor': { borderLeftColor: 'var(--ink)' },
  '&.cm-focused .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'var(--pairs) !important' },
  '.cm-panels, .cm-tooltip': { backgroundColor: 'var(--paper)', color: 'var(--ink)', borderColor: 'var(--rule)' },
});

/** Where an entry point begins in a source; its start if it is not there. */
function placeOf(source: string, entry: string): number {
  return Math.max(0, source.search(new RegExp(`@compute[^{]*?\\bfn\\s+${entry}\\b`)));
}

interface EditorsProps {
  readonly name: string;
  /** The text to show; it replaces what was typed when it is another than the last one given to `onChange`. */
  readonly text: string;
  readonly faults: readonly Fault[];
  readonly entryPoints: readonly string[];
  /** Places of the two views: entry points, or the head comment. */
  readonly shown: readonly [string, string];
  onChange(text: string): void;
  onShow(shown: [string, string]): void;
}

export function Editors(props: EditorsProps) {
  const { name, text, faults, entryPoints, shown } = props;
  const latest = useRef(props);
  latest.current = props;
  const hosts = [useRef<HTMLDivElement>(null), useRef<HTMLDivElement>(null)];
  const views = useRef<EditorView[]>([]);
  const pause = useRef<number | undefined>(undefined);
  const told = useRef(text);

  useEffect(() => {
    const typed = () => {
      clearTimeout(pause.current);
      pause.current = window.setTimeout(() => {
        told.current = views.current[0].state.doc.toString();
        latest.current.onChange(told.current);
      }, PAUSE);
    };
    const made = hosts.map(
      (host, side) =>
        new EditorView({
          parent: host.current!,
          doc: text,
          extensions: [
            [lineNumbers(), lintGutter(), history(), drawSelection(), highlightActiveLine(), bracketMatching()],
            [highlightSelectionMatches(), wgsl(), syntaxHighlighting(colours), look, EditorState.tabSize.of(2)],
            keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap]),
            EditorView.contentAttributes.of({ 'aria-label': `${name}.wgsl, ${side === 0 ? 'left' : 'right'} view` }),
            EditorView.updateListener.of(({ docChanged, changes, transactions }) => {
              if (!docChanged || transactions.some((own) => own.annotation(fromOtherView) !== undefined)) return;
              views.current[1 - side].dispatch({ changes, annotations: fromOtherView.of(true) });
              typed();
            }),
          ],
        }),
    );
    views.current = made;
    return () => {
      clearTimeout(pause.current);
      for (const view of made) view.destroy();
    };
  }, [name]);

  const show = (side: number, place: string) => {
    const view = views.current[side];
    const at = place === HEAD ? 0 : placeOf(view.state.doc.toString(), place);
    view.dispatch({ effects: EditorView.scrollIntoView(at, { y: 'start', yMargin: 4 }) });
  };

  useEffect(() => {
    if (told.current === text) return;
    clearTimeout(pause.current);
    told.current = text;
    for (const [side, view] of views.current.entries()) {
      const changes = { from: 0, to: view.state.doc.length, insert: text };
      view.dispatch({ changes, annotations: fromOtherView.of(true) });
      show(side, shown[side]);
    }
  }, [text]);

  useEffect(() => {
    for (const view of views.current) {
      const { doc } = view.state;
      const marks = faults
        .filter(({ line }) => line >= 1 && line <= doc.lines)
        .map((fault) => {
          const line = doc.line(fault.line);
          const from = Math.min(line.to, line.from + Math.max(0, fault.column - 1));
          return { from, to: Math.max(from, line.to), severity: 'error' as const, message: sentenceOf(fault) };
        });
      view.dispatch(setDiagnostics(view.state, marks));
    }
  }, [faults]);

  useEffect(() => show(0, shown[0]), [name, shown[0]]);
  useEffect(() => show(1, shown[1]), [name, shown[1]]);

  return (
    <div class="grid">
      {hosts.map((host, side) => (
        <div key={side}>
          <Choice
            label={side === 0 ? 'Left view' : 'Right view'}
            value={shown[side]}
            options={[HEAD, ...entryPoints]}
            onChange={(place) => {
              latest.current.onShow(side === 0 ? [place, shown[1]] : [shown[0], place]);
              show(side, place);
            }}
          />
          <div class="box kernels-editor" ref={host} />
        </div>
      ))}
    </div>
  );
}
