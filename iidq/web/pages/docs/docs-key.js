// The form for the key, shown instead of the API's description. It signs in as the operations page does.

import { session, signIn } from "../operations/session.js";
import { byId } from "../shared/elements.js";
import { apiKey, Fault } from "../shared/request.js";
import { sentence } from "../shared/words.js";

async function enter(key) {
  try {
    await signIn(key);
    // Without the session's cookie a reload shows this form again.
    if ((await session()).signedIn) location.reload();
    else showFault("This browser stores no cookie of this service. Allow cookies, and sign in again.");
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const isWrong = error.status === 401;
    showFault(isWrong ? "This is not the service’s API key. Compare it with the operator’s." : sentence(error.message));
  }
}

function showFault(fault) {
  byId("key-fault").textContent = fault;
  byId("key-text").setAttribute("aria-invalid", "true");
  byId("key-text").focus();
}

byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  void enter(byId("key-text").value);
});
// Use the key that this tab has from the verification page.
if (apiKey.get()) void enter(apiKey.get());
else byId("key-text").focus();
