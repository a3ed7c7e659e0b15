output "dashboard_url" {
  description = "The dashboard, to open in a browser where you are logged in to Datadog."
  value       = "https://${contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], local.ddg_site) ? "app." : ""}${local.ddg_site}${datadog_dashboard_json.stats.url}"
}

output "monitor_ids" {
  description = "Number of each monitor, which Datadog shows at /monitors/NUMBER."
  value       = { for name, monitor in datadog_monitor.metric : name => monitor.id }
}
