// Styles of libraries come as texts (build.mjs); the pages adopt them.
declare module '*.css' { const text: string; export default text; }
