// kubecheck FOLDER...: builds each kustomization and decodes every object strictly into Kubernetes' own types, so
// that a misspelt key, a number for a string and a duplicate name are errors.  Prints what it built, one object a
// line.  KEDA's objects are decoded into the part of their schema that is written down below (KEDA 2.20).
package main

import (
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

type scaledObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ScaleTargetRef struct {
			Name       string `json:"name"`
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		} `json:"scaleTargetRef"`
		PollingInterval       *int32 `json:"pollingInterval"`
		CooldownPeriod        *int32 `json:"cooldownPeriod"`
		InitialCooldownPeriod *int32 `json:"initialCooldownPeriod"`
		IdleReplicaCount      *int32 `json:"idleReplicaCount"`
		MinReplicaCount       *int32 `json:"minReplicaCount"`
		MaxReplicaCount       *int32 `json:"maxReplicaCount"`
		Fallback              *struct {
			FailureThreshold int32  `json:"failureThreshold"`
			Replicas         int32  `json:"replicas"`
			Behavior         string `json:"behavior"`
		} `json:"fallback"`
		Advanced *struct {
			RestoreToOriginalReplicaCount bool `json:"restoreToOriginalReplicaCount"`
			HorizontalPodAutoscalerConfig *struct {
				Name     string                                         `json:"name"`
				Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type              string            `json:"type"`
			Name              string            `json:"name"`
			Metadata          map[string]string `json:"metadata"`
			AuthenticationRef *struct {
				Name string `json:"name"`
				Kind string `json:"kind"`
			} `json:"authenticationRef"`
			MetricType string `json:"metricType"`
		} `json:"triggers"`
	} `json:"spec"`
}

type triggerAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SecretTargetRef []struct {
			Parameter string `json:"parameter"`
			Name      string `json:"name"`
			Key       string `json:"key"`
		} `json:"secretTargetRef"`
	} `json:"spec"`
}

var types = map[string]func() interface{}{
	"v1/Namespace":                           func() interface{} { return &corev1.Namespace{} },
	"v1/ServiceAccount":                      func() interface{} { return &corev1.ServiceAccount{} },
	"v1/Service":                             func() interface{} { return &corev1.Service{} },
	"v1/ConfigMap":                           func() interface{} { return &corev1.ConfigMap{} },
	"v1/Secret":                              func() interface{} { return &corev1.Secret{} },
	"apps/v1/Deployment":                     func() interface{} { return &appsv1.Deployment{} },
	"apps/v1/StatefulSet":                    func() interface{} { return &appsv1.StatefulSet{} },
	"networking.k8s.io/v1/NetworkPolicy":     func() interface{} { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":          func() interface{} { return &policyv1.PodDisruptionBudget{} },
	"keda.sh/v1alpha1/ScaledObject":          func() interface{} { return &scaledObject{} },
	"keda.sh/v1alpha1/TriggerAuthentication": func() interface{} { return &triggerAuthentication{} },
}

// What the restricted Pod Security standard asks for, and what we promise: read-only root, numeric user, probes.
func checkPod(where string, spec *corev1.PodSpec) (bad []string) {
	say := func(format string, args ...interface{}) { bad = append(bad, where+": "+fmt.Sprintf(format, args...)) }
	p := spec.SecurityContext
	if p == nil || p.RunAsNonRoot == nil || !*p.RunAsNonRoot || p.RunAsUser == nil || *p.RunAsUser == 0 {
		say("runAsNonRoot with a numeric user is missing")
	}
	if p == nil || p.SeccompProfile == nil || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		say("seccompProfile RuntimeDefault is missing")
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		say("automountServiceAccountToken is not false")
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range spec.Containers {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
			say("container %s: not restricted", c.Name)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			say("container %s: memory request or limit is missing", c.Name)
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				say("container %s: mounts %s, which is no volume", c.Name, m.Name)
			}
		}
	}
	return bad
}

func checkObject(text []byte, id string, as interface{}) []string {
	// Through JSON without knowing the type: otherwise a number would pass for text.
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return []string{id + ": " + err.Error()}
	}
	strict, err := json.UnmarshalStrict(plain, as)
	if err != nil {
		return []string{id + ": " + err.Error()}
	}
	if len(strict) > 0 {
		return []string{id + ": " + strict[0].Error()}
	}
	switch o := as.(type) {
	case *appsv1.Deployment:
		bad := checkPod(id, &o.Spec.Template.Spec)
		for _, c := range o.Spec.Template.Spec.Containers {
			if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
				bad = append(bad, id+": a probe is missing")
			} else if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.StartupProbe.HTTPGet.Path != "/healthz" ||
				c.ReadinessProbe.HTTPGet.Path != "/readyz" {
				bad = append(bad, id+": startup and liveness ask /healthz, readiness /readyz")
			}
		}
		return bad
	case *appsv1.StatefulSet:
		for _, v := range o.Spec.VolumeClaimTemplates { // they are volumes too
			o.Spec.Template.Spec.Volumes = append(o.Spec.Template.Spec.Volumes, corev1.Volume{Name: v.Name})
		}
		return checkPod(id, &o.Spec.Template.Spec)
	}
	return nil
}

func build(folder string) (bad []string) {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range m.Resources() {
		kind := r.GetApiVersion() + "/" + r.GetKind()
		id := kind + " " + r.GetName()
		text, err := r.AsYAML()
		if err != nil {
			bad = append(bad, err.Error())
			continue
		}
		make, known := types[kind]
		if !known {
			bad = append(bad, id+": a kind that this check does not know")
			continue
		}
		bad = append(bad, checkObject(text, id, make())...)
		fmt.Printf("# %s: %s\n", folder, id)
	}
	if os.Getenv("KUBECHECK_PRINT") != "" {
		if text, err := m.AsYaml(); err == nil {
			os.Stdout.Write(text)
		}
	}
	return bad
}

func main() {
	status := 0
	for _, folder := range os.Args[1:] {
		bad := build(folder)
		for _, b := range bad {
			fmt.Printf("# %s\n", b)
		}
		if len(bad) > 0 {
			fmt.Printf("not ok %s: %d problems\n", folder, len(bad))
			status = 1
		} else {
			fmt.Printf("ok %s\n", folder)
		}
	}
	os.Exit(status)
}
