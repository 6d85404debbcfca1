// The API's reference, drawn by Swagger UI from this server's own description.
import { askJson, keyHeaders } from "/web/http.js";

const spec = await askJson("/openapi.json");
globalThis.SwaggerUIBundle({
  spec,
  domNode: document.getElementById("api"),
  deepLinking: true,
  validatorUrl: null, // would ask another server
  requestInterceptor(request) {
    Object.assign(request.headers, keyHeaders());
    return request;
  },
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
