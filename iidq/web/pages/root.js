// Where the service is. This file is <root>/assets/<digest>/root.js, whatever a proxy has put before.

/** The path before all paths of the service: "", or such as "/iidq". */
export const root = new URL("../..", import.meta.url).pathname.slice(0, -1);

export const operations = `${root}/admin/queues`;
