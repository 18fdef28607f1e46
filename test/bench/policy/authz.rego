# The quick start's policy, but for the peer: opa-envoy-plugin knows only the principal that Envoy claims.
package envoy.authz

default allow := {"allowed": false, "reason": "no rule allows this peer, method and path"}

allow := {"allowed": true, "reason": "allowed by rule"} if {
	some rule in data.rules
	input.source_principal in rule.peers
	input.attributes.request.http.method in rule.methods
	some pattern in rule.paths
	glob.match(pattern, ["/"], path)
}

path := concat("", ["/", concat("/", input.parsed_path)])
