import type { ComponentType } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Adapter, useDevice } from './device.ts';
import { placeOf, useHash } from './link.ts';
import { Problem } from './parts.tsx';
import { sections } from './sections.ts';

const themes = ['auto', 'light', 'dark'] as const;

export function App() {
  const [opening, openAgain] = useDevice();
  const hash = useHash();
  const named = placeOf(hash).section;
  const section = sections.find(({ id }) => id === named) ?? sections[0];
  const main = useRef<HTMLElement>(null);
  const visited = useRef(new Set<string>()).current.add(section.id);
  useEffect(() => {
    document.title = `${section.title} · Insula explorer`;
    scrollTo(0, 0);
  }, [section]);
  return (
    <>
      <a class="skip" href={hash} onClick={() => main.current?.focus()}>
        Skip to the content
      </a>
      <header class="top">
        <strong>Insula</strong>
        <nav aria-label="Sections">
          {sections.map(({ id, title }) => (
            <a key={id} href={`#${id}`} aria-current={id === section.id ? 'page' : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <Theme />
      </header>
      <main ref={main} tabIndex={-1}>
        <h1>{section.title}</h1>
        <p class="under">{section.question}</p>
        <p class="adapter" aria-live="polite">
          {opening.kind === 'open'
            ? `Computed on ${opening.adapter.device.description || 'an adapter without a name'}`
            : '\u00a0'}
        </p>
        {opening.kind === 'opening' && <p>The adapter is being opened …</p>}
        {opening.kind === 'failed' && <Problem text={opening.reason} again={openAgain} />}
        {named !== '' && named !== section.id && (
          <Problem text={`There is no section '${named}': this is the first.`} />
        )}
        {opening.kind === 'open' &&
          sections.flatMap(({ id, load }) =>
            // A section that was left stays as it is: what was trained or typed there is there again.
            visited.has(id)
              ? [
                  <div key={id} hidden={id !== section.id}>
                    <Loaded load={load} adapter={opening.adapter} />
                  </div>,
                ]
              : [],
          )}
      </main>
    </>
  );
}

/** A section; its modules are loaded when it is first shown. */
function Loaded({ load, adapter }: { load: () => Promise<ComponentType<{ adapter: Adapter }>>; adapter: Adapter }) {
  const [loaded, setLoaded] = useState<{ Section: ComponentType<{ adapter: Adapter }> } | { failed: string } | null>(
    null,
  );
  useEffect(() => {
    load().then(
      (Section) => setLoaded({ Section }),
      (error: Error) => setLoaded({ failed: `This section does not load: ${error.message}` }),
    );
  }, [load]);
  if (!loaded) return <p>This section is being loaded …</p>;
  return 'failed' in loaded ? <Problem text={loaded.failed} /> : <loaded.Section adapter={adapter} />;
}

function Theme() {
  const [theme, setTheme] = useState<(typeof themes)[number]>('auto');
  useEffect(() => {
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }, [theme]);
  return (
    <button type="button" class="plain" onClick={() => setTheme(themes[(themes.indexOf(theme) + 1) % themes.length])}>
      Colours: {theme}
    </button>
  );
}
