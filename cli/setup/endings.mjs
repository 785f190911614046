/**
 * The signals that end a program: keys of a terminal send SIGINT and SIGQUIT; terminals that are closed, service managers, schedulers of
 * clusters and limits of processor time send the others.
 * @type {readonly NodeJS.Signals[]}
 */
export const endings = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR2', 'SIGXCPU'];
