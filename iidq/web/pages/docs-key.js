// In place of the API's description, where the service asks for its key: signs in as the operations page does.
import { apiKey } from "./api.js";
import { $ } from "./elements.js";
import { Refused, session, signIn } from "./operations/request.js";

async function enter(key) {
  try {
    await signIn(key);
    // Without its cookie the page would only come again.
    if ((await session()).signedIn) location.reload();
    else tell("This browser keeps no cookie of this service. Allow it, and sign in again.");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(error.status === 401 ? "This is not the service’s API key. Compare it with the one that its operator gave you." : error.message);
  }
}

function tell(fault) {
  $("key-fault").textContent = fault;
  $("key-text").setAttribute("aria-invalid", "true");
  $("key-text").focus();
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  void enter($("key-text").value);
});
// The key that was entered on the verification page, in this tab.
if (apiKey.get()) void enter(apiKey.get());
else $("key-text").focus();
